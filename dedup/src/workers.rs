//! The threads that many pages are read on at once, and the processor time that folding has used.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::sys::ThreadClock;

/// Parts of some 20 µs that are worth waking threads for, at least.
const LEAST_PARTS: usize = 4;

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
    /// Starts `thread_count` threads, or one a processor.
    ///
    /// # Errors
    ///
    /// When threads cannot be started; none is left running.
    pub(crate) fn new(thread_count: Option<usize>) -> Result<Self, ThreadPoolBuildError> {
        let clocks = Arc::new(Mutex::new(Vec::new()));
        let register = Arc::clone(&clocks);
        let (alive, ended) = channel::<Infallible>();
        let (announce, announced) = channel();
        let pool = ThreadPoolBuilder::new()
            .num_threads(thread_count.unwrap_or(0))
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

    /// What `task` makes of each item, in order: by all threads and the caller, which take `part` items at a
    /// time, if there are enough of them. Not when the caller is a thread of another pool of rayon's: it would do
    /// other work of that pool while it waits, which may take the very lock that it holds on this engine.
    pub(crate) fn map<T: Sync, R: Send + Sync>(
        &self,
        items: &[T],
        part: usize,
        task: impl Fn(&T) -> R + Sync,
    ) -> Vec<R> {
        let thread_count = self.pool.as_ref().map_or(0, ThreadPool::current_num_threads);
        let is_worth_it = items.len() > (LEAST_PARTS - 1) * part && thread_count > 1;
        let (Some(pool), true) =
            (&self.pool, is_worth_it && rayon::current_thread_index().is_none())
        else {
            return items.iter().map(task).collect();
        };
        let parts: Vec<(&[T], OnceLock<Vec<R>>)> =
            items.chunks(part).map(|items| (items, OnceLock::new())).collect();
        let next = AtomicUsize::new(0);
        let help = || {
            while let Some((items, results)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                results.get_or_init(|| items.iter().map(&task).collect());
            }
        };
        // The caller does not wait for threads to wake up before it begins.
        pool.in_place_scope(|scope| {
            let helper_count = thread_count.min(parts.len()) - 1;
            (0..helper_count).for_each(|_| scope.spawn(|_| help()));
            help();
        });
        parts.into_iter().filter_map(|(_, results)| results.into_inner()).flatten().collect()
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
    /// gone: rayon alone only signals them to end.
    fn drop(&mut self) {
        drop(self.pool.take());
        // Nothing is ever sent: this returns when every thread has dropped its end.
        let _ = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner).recv();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failure is a panic")]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::thread;
    use std::time::Duration;

    use super::Workers;

    #[test]
    fn results_are_in_the_order_of_the_items_whoever_computes_them() {
        for (thread_count, part) in [(1, 1), (2, 7), (4, 1), (4, 64), (4, 1000)] {
            let workers = Workers::new(Some(thread_count)).unwrap();
            for count in [0, 1, 3, 4, 255, 1000] {
                let items: Vec<u32> = (0..count).collect();
                let doubled = workers.map(&items, part, |&item| 2 * item);
                assert_eq!(doubled, items.iter().map(|item| 2 * item).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn many_items_are_shared_by_threads_and_the_caller() {
        let workers = Workers::new(Some(2)).unwrap();
        let by = Mutex::new(BTreeSet::new());
        workers.map(&[(); 100], 1, |()| {
            by.lock().unwrap().insert(format!("{:?}", thread::current().id()));
            thread::sleep(Duration::from_millis(1));
        });
        assert_eq!(by.into_inner().unwrap().len(), 2);
    }
}
