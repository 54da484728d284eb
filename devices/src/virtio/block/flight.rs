//! Requests that were taken off the queue: those that wait, those in the works, and those that are done and not handed
//! back yet.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use virtio_queue::DescriptorChain;

use super::execution::Disk;
use super::metrics::BlockMetrics;
use super::storage::Storage;
use crate::DeviceMemory;
use crate::virtio::{InFlight, QueueWaker};
use crate::workers::{Work, WorkerPool};

/// Requests of one device that are in the works at a time, each on a thread.
pub const MAX_RUNNING: usize = 4;

/// A request in memory of type `M`.
pub(super) type Taken<M> = DescriptorChain<Arc<M>>;

/// The head of a request that is done, and how many bytes were written to its buffers.
pub(super) type Completed = (u16, u32);

/// The requests of a device, between its queue and the threads that carry them out.
///
/// The threads take this lock alone, and never the transport's: whoever holds that may wait for them.
pub(super) struct Flight<M> {
    state: Mutex<State<M>>,
    /// Notified when the last request in the works is done.
    none_running: Condvar,
    metrics: Arc<BlockMetrics>,
    /// How often it was reset: what was begun before is given up between two calls to the storage, and not handed back.
    resets: AtomicU64,
}

/// What a device has of the host.
#[derive(Clone)]
struct Host {
    storage: Arc<dyn Storage>,
    waker: Arc<dyn QueueWaker>,
}

struct State<M> {
    /// `None` when the machine is gone.
    host: Option<Host>,
    waiting: VecDeque<Taken<M>>,
    running: usize,
    completed: Vec<Completed>,
    /// Turns that it has with the threads.
    turns: usize,
    is_paused: bool,
    is_write_through: bool,
}

impl<M: DeviceMemory + 'static> Flight<M> {
    pub(super) fn new(storage: Arc<dyn Storage>, waker: Arc<dyn QueueWaker>) -> Self {
        let state = State {
            host: Some(Host { storage, waker }),
            waiting: VecDeque::new(),
            running: 0,
            completed: Vec::new(),
            turns: 0,
            is_paused: false,
            is_write_through: false,
        };
        Self {
            state: Mutex::new(state),
            none_running: Condvar::new(),
            metrics: Arc::default(),
            resets: AtomicU64::new(0),
        }
    }

    pub(super) fn metrics(&self) -> Arc<BlockMetrics> {
        Arc::clone(&self.metrics)
    }

    fn state(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_write_through(&self, is_write_through: bool) {
        self.state().is_write_through = is_write_through;
    }

    /// How many requests it has, those among them that are done.
    pub(super) fn count(&self) -> usize {
        let state = self.state();
        state.waiting.len() + state.running + state.completed.len()
    }

    /// Those that are done, which are to be handed back.
    pub(super) fn take_completed(&self) -> Vec<Completed> {
        std::mem::take(&mut self.state().completed)
    }

    /// Has `workers` carry requests out, in this order, a few at a time.
    pub(super) fn add(self: &Arc<Self>, taken: Vec<Taken<M>>, workers: &Weak<WorkerPool>) {
        let mut state = self.state();
        state.waiting.extend(taken);
        self.add_turns(state, workers);
    }

    /// Begins no request, or goes on with those that wait.
    pub(super) fn set_paused(self: &Arc<Self>, is_paused: bool, workers: &Weak<WorkerPool>) {
        let mut state = self.state();
        state.is_paused = is_paused;
        self.add_turns(state, workers);
    }

    fn add_turns(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State<M>>,
        workers: &Weak<WorkerPool>,
    ) {
        let before = state.turns;
        let Some(workers) = workers.upgrade() else { return };
        if !state.is_paused {
            state.turns = before.max(MAX_RUNNING.min(state.waiting.len() + state.running));
        }
        let after = state.turns;
        drop(state);
        for number in before..after {
            workers.add(Arc::clone(self) as Arc<dyn Work>, number > 0);
        }
    }

    /// Gives up what waits, and what is in the works as soon as it can; nothing of it is handed back.
    pub(super) fn reset(&self) {
        let mut state = self.state();
        state.waiting = VecDeque::new();
        state.completed = Vec::new();
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops what it has of the host, once no request uses it.
    pub(super) fn close(&self) {
        let host = self.state().host.take();
        // Without the lock: to close a file may take long.
        drop(host);
    }
}

impl<M: DeviceMemory + 'static> Work for Flight<M> {
    fn carry_out(&self) -> bool {
        let mut state = self.state();
        let next = if state.is_paused { None } else { state.waiting.pop_front() };
        let Some((chain, host)) = next.zip(state.host.clone()) else {
            state.turns -= 1;
            return false;
        };
        state.running += 1;
        let is_write_through = state.is_write_through;
        // Changed under the lock only.
        let resets = self.resets.load(Ordering::Relaxed);
        let is_wanted = || self.resets.load(Ordering::Relaxed) == resets;
        drop(state);

        let head = chain.head_index();
        // The device would wait for ever for one that panicked, which the hook has reported.
        let written = catch_unwind(AssertUnwindSafe(|| {
            let (storage, metrics) = (&*host.storage, &*self.metrics);
            let disk = Disk { storage, is_write_through, is_wanted: &is_wanted, metrics };
            let memory = chain.clone();
            disk.carry_out(chain, memory.memory())
        }));
        let Host { storage, waker } = host;
        drop(storage);

        let mut state = self.state();
        state.running -= 1;
        if state.running == 0 {
            self.none_running.notify_all();
        }
        let is_handed_back = is_wanted();
        // Whoever takes the first takes those that come meanwhile, too.
        let is_first = state.completed.is_empty();
        if is_handed_back {
            state.completed.push((head, written.unwrap_or(0)));
        }
        let is_more = !state.is_paused && !state.waiting.is_empty();
        state.turns -= usize::from(!is_more);
        drop(state);
        if is_handed_back && is_first {
            waker.wake();
        }
        is_more
    }
}

impl<M: DeviceMemory + 'static> InFlight for Flight<M> {
    fn wait(&self) {
        let state = self.state();
        let _none_running = self
            .none_running
            .wait_while(state, |state| state.running > 0)
            .unwrap_or_else(PoisonError::into_inner);
    }
}
