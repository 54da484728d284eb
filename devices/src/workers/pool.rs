//! The threads.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use super::Work;
use super::turns::{Turn, Turns};

/// Threads at most, for all devices of a host.
const MAX_THREADS: usize = 32;

/// How long a thread waits for work before it ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// Nothing deep is called on it.
const STACK_BYTES: usize = 256 << 10;

/// Threads that are started as there is work, and end when there is none for a while; one stays. Dropping it ends them
/// all, when they have done what they are at.
pub struct WorkerPool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Notified of turns, and of the pool's end.
    turns_or_end: Condvar,
    /// Notified when the last thread has ended.
    no_threads: Condvar,
    max_threads: usize,
    /// Called by each thread first.
    prepare: fn(),
}

struct State {
    turns: Turns,
    threads: usize,
    waiting_threads: usize,
    failed_starts: u64,
    is_over: bool,
}

impl WorkerPool {
    /// Up to 32 threads, of which there is none yet; each calls `prepare` before anything else.
    pub fn new(prepare: fn()) -> Self {
        Self::with_threads(MAX_THREADS, prepare)
    }

    /// As many threads as [`new`](Self::new) has at most.
    pub const fn max_threads() -> usize {
        MAX_THREADS
    }

    pub(super) fn with_threads(max_threads: usize, prepare: fn()) -> Self {
        let turns = Turns::new((max_threads / 2).max(1));
        let state =
            State { turns, threads: 0, waiting_threads: 0, failed_starts: 0, is_over: false };
        let shared = Shared {
            state: Mutex::new(state),
            turns_or_end: Condvar::new(),
            no_threads: Condvar::new(),
            max_threads,
            prepare,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Has one thread at least, which stays: there will be somebody to do what is [added](Self::add).
    ///
    /// # Errors
    ///
    /// When there is none, and the host gives none.
    pub fn ensure_thread(&self) -> io::Result<()> {
        let mut state = self.shared.state();
        if state.threads == 0 { self.shared.start_thread(&mut state) } else { Ok(()) }
    }

    /// Has a thread carry `work` out until there is no more of it; `is_further` if another does so already. Does not
    /// wait. O(1).
    pub fn add(&self, work: Arc<dyn Work>, is_further: bool) {
        let mut state = self.shared.state();
        state.turns.add(Turn { work, is_further });
        if state.turns.takeable() > state.waiting_threads
            && state.threads < self.shared.max_threads
            && let Err(error) = self.shared.start_thread(&mut state)
        {
            // Those that there are will come to it.
            state.failed_starts += 1;
            if state.failed_starts.is_power_of_two() {
                log::warn!("cannot start a further thread for disks: {error}");
            }
        }
        drop(state);
        self.shared.turns_or_end.notify_one();
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_over = true;
        self.shared.turns_or_end.notify_all();
        let _no_threads = self
            .shared
            .no_threads
            .wait_while(state, |state| state.threads > 0)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_thread(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let this = Arc::clone(self);
        let name = format!("pagefold-disk{}", state.threads);
        Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || this.run())?;
        state.threads += 1;
        Ok(())
    }

    fn run(&self) {
        (self.prepare)();
        let mut state = self.state();
        loop {
            if let Some(turn) = state.turns.take() {
                drop(state);
                let is_more = catch_unwind(AssertUnwindSafe(|| turn.work.carry_out()));
                state = self.state();
                state.turns.give_back(&turn);
                // Of one that panicked, which the hook has reported, nothing more can be expected.
                if is_more.unwrap_or(false) && !state.is_over {
                    state.turns.add(turn);
                }
                continue;
            }
            if state.is_over {
                break;
            }
            state.waiting_threads += 1;
            let (after, timeout) = self
                .turns_or_end
                .wait_timeout(state, PATIENCE)
                .unwrap_or_else(PoisonError::into_inner);
            state = after;
            state.waiting_threads -= 1;
            if timeout.timed_out() && state.turns.takeable() == 0 && state.threads > 1 {
                break;
            }
        }
        state.threads -= 1;
        if state.threads == 0 {
            self.no_threads.notify_all();
        }
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state();
        f.debug_struct("WorkerPool").field("threads", &state.threads).finish_non_exhaustive()
    }
}
