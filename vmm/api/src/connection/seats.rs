//! Who is connected, and who has to leave when others find no room.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::seat::Seat;
use crate::limits::Limits;

/// Connections served at once. Others wait in the socket's queue until a client leaves, or has been
/// waited for so long that it has to leave.
const MAX_CONNECTIONS: u32 = 64;

/// How many times as long as a client may be waited for another waits for a seat before any must leave.
const PATIENCE: u32 = 4;

/// The seats of all connections.
#[derive(Debug)]
pub(crate) struct Seats {
    free: Arc<Semaphore>,
    taken: Vec<Weak<Seat>>,
    /// Since when no seat was free but one that a client had left for another.
    crowded_since: Option<Instant>,
    make_room: Duration,
    /// The same as `make_room`, where it is a descriptor that is needed.
    free_descriptor: Duration,
}

/// A seat, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    seat: Arc<Seat>,
    _permit: OwnedSemaphorePermit,
}

impl Taken {
    pub(super) fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }
}

impl Seats {
    /// All free. A client that has been waited for as long as `limits` give it may have to leave.
    pub(crate) fn new(limits: Limits) -> Self {
        let free = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
        let Limits { make_room, free_descriptor, .. } = limits;
        Self { free, taken: Vec::new(), crowded_since: None, make_room, free_descriptor }
    }

    /// What all seats come back to: for waiting until all are free.
    pub(crate) fn all_free(&self) -> impl Future<Output = ()> + use<> {
        let free = Arc::clone(&self.free);
        async move {
            // It is never closed.
            let _ = free.acquire_many(MAX_CONNECTIONS).await;
        }
    }

    /// Takes a seat, one of a client that is waited for if there is none.
    pub(crate) async fn take(&mut self) -> Taken {
        if self.free.available_permits() > 0 {
            self.crowded_since = None;
        }
        // Clients that come later do not wait as long once more.
        let since = *self.crowded_since.get_or_insert_with(Instant::now);
        loop {
            let free = Arc::clone(&self.free).acquire_owned();
            let look_again = if self.free.available_permits() > 0 {
                Instant::now() + self.make_room
            } else {
                let wait = self.make_room(since, self.make_room);
                wait.unwrap_or_else(|| Instant::now() + self.make_room)
            };
            tokio::select! {
                biased;
                // It is never closed.
                Ok(permit) = free => {
                    let seat = Arc::new(Seat::new());
                    self.taken.retain(|seat| seat.strong_count() > 0);
                    self.taken.push(Arc::downgrade(&seat));
                    return Taken { seat, _permit: permit };
                }
                () = sleep_until(look_again) => {}
            }
        }
    }

    /// Has a client leave because no other gets a descriptor, which has been so since `wanted_since`. Returns when to
    /// look again, `None` if one leaves. O(n).
    pub(crate) fn free_descriptor(&self, wanted_since: Instant) -> Option<Instant> {
        self.make_room(wanted_since, self.free_descriptor)
    }

    /// Has the client leave that has been waited for longest, if that is as long as `patience`, for another that has
    /// waited since `wanted_since`. Where all go on sending requests, the one leaves that came first, between two of
    /// its requests. Returns when to look again, `None` if one leaves. O(n).
    fn make_room(&self, wanted_since: Instant, patience: Duration) -> Option<Instant> {
        let now = Instant::now();
        let seats = self.taken.iter().filter_map(Weak::upgrade);
        let mut waiting = seats.filter_map(|seat| Some((seat.waits_since()?, seat)));
        if wanted_since + PATIENCE * self.make_room <= now {
            let Some((_, first)) = waiting.next() else {
                return Some(now + self.make_room / PATIENCE);
            };
            first.leave();
            return None;
        }
        match waiting.min_by_key(|(since, _)| *since) {
            Some((since, seat)) if since + patience <= now => {
                seat.leave();
                None
            }
            Some((since, _)) => Some(since + patience),
            None => Some(now + patience),
        }
    }
}
