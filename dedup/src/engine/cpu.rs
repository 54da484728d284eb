//! The engine's threads, and the processor time that they have used.

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::sys::ThreadClock;

/// A pool on which all folding runs, so that its threads' time is folding's time.
#[derive(Debug)]
pub(super) struct Workers {
    /// `None` only while the threads are being ended.
    pool: Option<ThreadPool>,
    clocks: Arc<Mutex<Vec<ThreadClock>>>,
    /// Closed when the last thread has ended.
    ended: Mutex<Receiver<Infallible>>,
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
        let (alive, ended) = channel::<Infallible>();
        let pool = ThreadPoolBuilder::new()
            .num_threads(count_threads.unwrap_or(0))
            .thread_name(|number| format!("pagefold-fold{number}"))
            .start_handler(move |_| {
                let mut clocks = register.lock().unwrap_or_else(PoisonError::into_inner);
                clocks.extend(ThreadClock::current());
            })
            .spawn_handler(move |thread| {
                let (name, alive) = (thread.name().map(str::to_owned), alive.clone());
                let builder = name.into_iter().fold(Builder::new(), Builder::name);
                builder.spawn(move || {
                    thread.run();
                    drop(alive);
                })?;
                Ok(())
            })
            .build()?;
        // Every thread has announced its clock once it has run something.
        pool.broadcast(|_| ());
        Ok(Self { pool: Some(pool), clocks, ended: Mutex::new(ended) })
    }

    /// Runs `work` on one of the threads; what it does in parallel runs on all of them.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => unreachable!("work for threads that are being ended"),
        }
    }

    /// Processor time of all threads so far.
    pub(super) fn cpu_time(&self) -> Duration {
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        // The threads live as long as the pool does, so their clocks can be read.
        clocks.iter().filter_map(|clock| clock.now()).sum()
    }
}

impl Drop for Workers {
    /// Ends the threads and waits until they have, so that nothing is left of an engine that is
    /// gone: rayon alone only tells them to end.
    fn drop(&mut self) {
        drop(self.pool.take());
        // Nothing is ever sent: this returns when every thread has dropped its end.
        let _ = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner).recv();
    }
}
