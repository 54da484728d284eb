//! The engine's threads, and the processor time that they have used.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::sys::ThreadClock;

/// A pool on which all folding runs, so that its threads' time is folding's time.
#[derive(Debug)]
pub(super) struct Workers {
    pool: ThreadPool,
    clocks: Arc<Mutex<Vec<ThreadClock>>>,
}

impl Workers {
    /// Starts `count_threads` threads, or one a processor.
    ///
    /// # Errors
    ///
    /// When threads cannot be started; none is left running.
    pub(super) fn new(count_threads: Option<usize>) -> Result<Self, ThreadPoolBuildError> {
        let clocks = Arc::new(Mutex::new(Vec::new()));
        let register = Arc::clone(&clocks);
        let pool = ThreadPoolBuilder::new()
            .num_threads(count_threads.unwrap_or(0))
            .thread_name(|number| format!("pagefold-fold{number}"))
            .start_handler(move |_| {
                let mut clocks = register.lock().unwrap_or_else(PoisonError::into_inner);
                clocks.extend(ThreadClock::current());
            })
            .build()?;
        // Every thread has announced its clock once it has run something.
        pool.broadcast(|_| ());
        Ok(Self { pool, clocks })
    }

    /// Runs `work` on one of the threads; what it does in parallel runs on all of them.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    /// Processor time of all threads so far.
    pub(super) fn cpu_time(&self) -> Duration {
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        // The threads live as long as the pool does, so their clocks can be read.
        clocks.iter().filter_map(|clock| clock.now()).sum()
    }
}
