//! What one connection waits for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

/// A connection's place among those that are served.
#[derive(Debug)]
pub(super) struct Seat {
    /// Since when its client has been waited for: to begin a request, to send the rest of it, or to
    /// read the answer. `None` while a request of its is carried out.
    waits_since: Mutex<Option<Instant>>,
    left: Notify,
}

/// A request that is being carried out: meanwhile its client is not waited for.
#[derive(Debug)]
pub(super) struct Attended<'a>(&'a Seat);

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        *self.0.lock() = Some(Instant::now());
    }
}

impl Seat {
    /// Of a client that has connected and is to send a request.
    pub(super) fn new() -> Self {
        Self { waits_since: Mutex::new(Some(Instant::now())), left: Notify::new() }
    }

    /// Begins to carry out a request.
    pub(super) fn attend(&self) -> Attended<'_> {
        self.attend_again();
        Attended(self)
    }

    /// What a request waits for has come from its client.
    pub(super) fn attend_again(&self) {
        *self.lock() = None;
    }

    /// Cannot go on carrying out a request before more comes from its client.
    pub(super) fn wait(&self) {
        self.lock().get_or_insert_with(Instant::now);
    }

    /// The client has sent or read something.
    pub(super) fn progress(&self) {
        if let Some(since) = self.lock().as_mut() {
            *since = Instant::now();
        }
    }

    /// Since when its client has been waited for; `None` if it is not.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        *self.lock()
    }

    /// Has the connection closed.
    pub(super) fn leave(&self) {
        self.left.notify_one();
    }

    /// Waits until the connection is to be closed: for others, or because its client has been waited
    /// for as long as `stall`.
    pub(super) async fn is_to_be_left(&self, stall: Duration) {
        let has_stalled = async {
            loop {
                match self.waits_since().map(|since| since + stall) {
                    None => sleep(stall).await,
                    Some(end) if end <= Instant::now() => return,
                    Some(end) => sleep_until(end).await,
                }
            }
        };
        tokio::select! {
            () = has_stalled => {}
            () = self.left.notified() => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.waits_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
