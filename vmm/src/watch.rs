//! What can be waited for: a VM's state, and what its guest reports.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::DedupMode;
use crate::status::VmState;
use crate::vcpu::StopReason;

/// Everything about a VM that changes, behind one lock that is only ever held for moments. Under it, none is taken
/// but its guest's extension's own.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    watched: Mutex<Watched>,
    changed: Condvar,
}

#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) state: VmState,
    pub(crate) started_at: Option<Instant>,
    pub(crate) stop_reason: Option<StopReason>,
    /// When the guest first reported that it was ready.
    pub(crate) ready_at: Option<Instant>,
    /// What folding may do with it.
    pub(crate) dedup: DedupMode,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            state: VmState::Created,
            started_at: None,
            stop_reason: None,
            ready_at: None,
            dedup: DedupMode::default(),
        }
    }
}

impl Watched {
    /// Milliseconds from the start until the guest was ready.
    pub(crate) fn ready_ms(&self) -> Option<u64> {
        let elapsed = self.ready_at?.saturating_duration_since(self.started_at?);
        u64::try_from(elapsed.as_millis()).ok()
    }
}

impl Watch {
    /// Everything as it is now.
    pub(crate) fn now(&self) -> Watched {
        self.lock().clone()
    }

    /// The state now.
    pub(crate) fn state(&self) -> VmState {
        self.lock().state
    }

    /// Takes something in, under the lock, that shows whether the guest is ready; true if it was not before.
    pub(crate) fn note(&self, is_ready: impl FnOnce() -> bool) -> bool {
        let now = Instant::now();
        let mut becomes_ready = false;
        self.change(|watched| {
            becomes_ready = is_ready() && watched.ready_at.is_none();
            if becomes_ready {
                watched.ready_at = Some(now);
            }
        });
        becomes_ready
    }

    /// Changes something and notifies whoever waits.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Watched)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until `seek` finds what it looks for, for at most `timeout`.
    pub(crate) fn wait<T>(
        &self,
        timeout: Duration,
        seek: impl Fn(&Watched) -> Option<T>,
    ) -> Option<T> {
        // A time that the clock cannot represent is for ever.
        let end = Instant::now().checked_add(timeout);
        let mut watched = self.lock();
        loop {
            if let Some(found) = seek(&watched) {
                return Some(found);
            }
            watched = match end.map(|end| end.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return None,
                Some(left) => {
                    let woken = self.changed.wait_timeout(watched, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(watched).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
