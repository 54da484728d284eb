//! The threads that many pages are read on at once, and the processor time that folding has used.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::sys::ThreadClock;

/// Items that one task maps, at least: waking a thread for fewer takes longer than it saves.
const TASK_ITEMS: usize = 128;

/// A pool of threads beside those that drive an engine. A step is short, and handing each to the pool would
/// cost more than a tenth of what it does, so the pool has only what is done in parallel.
#[derive(Debug)]
pub(crate) struct Workers {
    /// `None` only while the threads are being ended.
    pool: Option<ThreadPool>,
    clocks: Arc<Mutex<Vec<ThreadClock>>>,
    /// Processor time of the engine's callers, in nanoseconds.
    callers_nanos: AtomicU64,
    /// Closed when the last thread has ended.
    ended: Mutex<Receiver<Infallible>>,
}

impl Workers {
    /// Starts `count_threads` threads, or one a processor.
    ///
    /// # Errors
    ///
    /// When threads cannot be started; none is left running.
    pub(crate) fn new(count_threads: Option<usize>) -> Result<Self, ThreadPoolBuildError> {
        let clocks = Arc::new(Mutex::new(Vec::new()));
        let register = Arc::clone(&clocks);
        let (alive, ended) = channel::<Infallible>();
        let (announce, announced) = channel();
        let pool = ThreadPoolBuilder::new()
            .num_threads(count_threads.unwrap_or(0))
            .thread_name(|number| format!("pagefold-fold{number}"))
            .start_handler(move |_| {
                let mut clocks = register.lock().unwrap_or_else(PoisonError::into_inner);
                clocks.extend(ThreadClock::current());
                // Whoever waits for it is there until all have sent theirs.
                let _ = announce.send(());
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
        // Not by rayon's means, which would do other work of a pool that the caller is a thread of.
        announced.iter().take(pool.current_num_threads()).for_each(drop);
        let (callers_nanos, ended) = (AtomicU64::new(0), Mutex::new(ended));
        Ok(Self { pool: Some(pool), clocks, callers_nanos, ended })
    }

    /// Does `work`, whose processor time counts as folding's.
    pub(crate) fn count<T>(&self, work: impl FnOnce() -> T) -> T {
        let now = || ThreadClock::current().and_then(ThreadClock::now);
        let before = now();
        let result = work();
        if let (Some(before), Some(after)) = (before, now()) {
            let nanos = after.saturating_sub(before).as_nanos();
            self.callers_nanos.fetch_add(nanos.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        result
    }

    /// What `task` makes of each item, in order: on all threads, if there are enough items. Not when the caller
    /// is a thread of another pool of rayon's: it would do other work of that pool while it waits, which may
    /// want the very lock that it holds on this engine.
    pub(crate) fn map<T: Sync, R: Send>(
        &self,
        items: &[T],
        task: impl Fn(&T) -> R + Sync + Send,
    ) -> Vec<R> {
        let is_worth_it = items.len() >= 2 * TASK_ITEMS && rayon::current_thread_index().is_none();
        match &self.pool {
            Some(pool) if is_worth_it && pool.current_num_threads() > 1 => {
                pool.install(|| items.par_iter().with_min_len(TASK_ITEMS).map(task).collect())
            }
            _ => items.iter().map(task).collect(),
        }
    }

    /// Processor time of folding so far, but for what is being [counted](Self::count).
    pub(crate) fn cpu_time(&self) -> Duration {
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        // The threads live as long as the pool does, so their clocks can be read.
        let threads: Duration = clocks.iter().filter_map(|clock| clock.now()).sum();
        threads + Duration::from_nanos(self.callers_nanos.load(Ordering::Relaxed))
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
