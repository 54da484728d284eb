//! What a run waits for: signals, the ends of its VMs, and work that blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use pagefold::VmHandle;

use super::signals;
use crate::failure::{Advise, Failure};

/// How often a wait calls its `tick`.
const TICK: Duration = Duration::from_millis(500);

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Interrupted,
    AllEnded,
    WorkDone,
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Its time was up.
    TimeUp,
    /// SIGINT, SIGTERM or SIGHUP came.
    Interrupted,
    /// Every VM has ended.
    AllEnded,
}

/// The events of one run.
#[derive(Debug)]
pub(super) struct Events {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
    interrupted: Arc<AtomicBool>,
    /// The end of all VMs was received while something else was waited for.
    all_ended: bool,
}

impl Events {
    /// Begins to listen to SIGINT, SIGTERM and SIGHUP: the first of them is an event, and a later one, or
    /// one of the others that end processes, ends this one at once.
    pub(super) fn new() -> Result<Self, Failure> {
        let events = Self::of_nothing();
        let (sender, interrupted) = (events.sender.clone(), Arc::clone(&events.interrupted));
        let first = move || {
            interrupted.store(true, Ordering::Relaxed);
            // Nobody listens any more when the run is over.
            let _ = sender.send(Event::Interrupted);
        };
        signals::listen(first)
            .advise("cannot listen to signals", "see the limits in `ulimit -a`")?;
        Ok(events)
    }

    /// Events of whatever is watched later.
    fn of_nothing() -> Self {
        let (sender, receiver) = mpsc::channel();
        Self { sender, receiver, interrupted: Arc::default(), all_ended: false }
    }

    /// Whether a signal has come, for what is done step by step and does not wait.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Makes the end of the last of `vms` an event.
    pub(super) fn watch(&self, vms: Vec<VmHandle>) -> Result<(), Failure> {
        let sender = self.sender.clone();
        spawn("pagefold-watch", move || {
            for vm in vms {
                while vm.wait(Duration::MAX).is_none() {}
            }
            // Nobody listens any more when the run is over.
            let _ = sender.send(Event::AllEnded);
        })
    }

    /// Waits until one of the reasons there are, for `limit` at most.
    pub(super) fn wait(&mut self, limit: Option<Duration>, mut tick: impl FnMut()) -> Why {
        let end = limit.and_then(|limit| Instant::now().checked_add(limit));
        if self.all_ended {
            return Why::AllEnded;
        }
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Why::TimeUp;
            }
            match self.receiver.recv_timeout(left.map_or(TICK, |left| left.min(TICK))) {
                Ok(Event::Interrupted) => return Why::Interrupted,
                Ok(Event::AllEnded) => return Why::AllEnded,
                // Of work that was not waited for.
                Ok(Event::WorkDone) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => tick(),
            }
        }
    }

    /// Does what blocks on a thread of its own, and waits for it. `None` if a signal comes first:
    /// the work then goes on, and its result is dropped.
    pub(super) fn wait_for<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        mut tick: impl FnMut(),
    ) -> Result<Option<T>, Failure> {
        let (result_sender, result) = mpsc::sync_channel(1);
        let sender = self.sender.clone();
        spawn("pagefold-wait", move || {
            let _ = result_sender.send(work());
            let _ = sender.send(Event::WorkDone);
        })?;
        loop {
            match self.receiver.recv_timeout(TICK) {
                Ok(Event::Interrupted) => return Ok(None),
                Ok(Event::AllEnded) => self.all_ended = true,
                Ok(Event::WorkDone) => {}
                Err(_) => tick(),
            }
            match result.try_recv() {
                Ok(found) => return Ok(Some(found)),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    return Err(Failure::new(
                        "a thread of the run panicked",
                        "report this as a fault, with what is said above",
                    ));
                }
            }
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .advise("cannot start a thread", "see the limit on processes (ulimit -u)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_what_comes_first() {
        let mut events = Events::of_nothing();
        assert_eq!(events.wait(Some(Duration::from_millis(1)), || ()), Why::TimeUp);
        events.sender.send(Event::WorkDone).expect("sent");
        events.sender.send(Event::Interrupted).expect("sent");
        assert_eq!(events.wait(None, || ()), Why::Interrupted);
        events.watch(Vec::new()).expect("watched");
        assert_eq!(events.wait(Some(Duration::MAX), || ()), Why::AllEnded);
    }

    #[test]
    fn the_end_of_all_vms_is_not_missed_while_something_else_is_waited_for() {
        let mut events = Events::of_nothing();
        events.sender.send(Event::AllEnded).expect("sent");
        assert_eq!(events.wait_for(|| 7, || ()).expect("a thread"), Some(7));
        assert_eq!(events.wait(Some(Duration::from_mins(1)), || ()), Why::AllEnded);
    }

    #[test]
    fn work_is_waited_for_until_a_signal() {
        let mut events = Events::of_nothing();
        assert_eq!(events.wait_for(|| 7, || ()).expect("a thread"), Some(7));
        let (release, released) = mpsc::channel::<()>();
        events.sender.send(Event::Interrupted).expect("sent");
        let unheard = events.wait_for(move || released.recv().is_ok(), || ()).expect("a thread");
        assert_eq!(unheard, None);
        drop(release);
        // What it reports later is not taken for another's answer.
        assert_eq!(events.wait_for(|| 8, || ()).expect("a thread"), Some(8));
    }

    #[test]
    fn work_that_panics_is_a_failure() {
        let failure =
            Events::of_nothing().wait_for(|| panic!("as asked"), || ()).map(|_: Option<()>| ());
        assert!(failure.expect_err("a failure").to_string().contains("panicked"));
    }
}
