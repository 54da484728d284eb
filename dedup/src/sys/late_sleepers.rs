//! Waking those who went to sleep on a page just after everybody was woken.
//!
//! A page fault that finds its page protected queues up at the userfaultfd, looks whether the page can be
//! written by now, and sleeps if not. Between finding out and queueing up, the page may be unprotected and
//! everybody who is queued be woken. The second look does not check then whether the page is still
//! protected: a page over a slot can never be written as it is, and one that was given back is not there.
//! So whoever was that late would sleep until a signal came, and nothing that can be called before the
//! wake-up waits until all are queued: only a change to the mapping itself does.
//!
//! Therefore a thread wakes whoever has slept for longer than pages are protected. If a page is after all,
//! its fault only sleeps again.
//!
//! Source: `handle_userfault` and `userfaultfd_must_wait` of `fs/userfaultfd.c`, Linux 6.1 to 6.18.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::uffd::Userfaultfd;
use super::uffd_thread::{Stop, UffdThread};

/// How long faults sleep before they are woken by the thread: most are by whoever protected their page.
const PATIENCE: Duration = Duration::from_millis(1);

/// Wakes late sleepers for as long as there is one.
#[derive(Debug)]
pub(crate) struct LateSleepers {
    _thread: UffdThread,
}

impl LateSleepers {
    /// Starts to wake those that sleep at `uffd`, which nobody else reads from.
    ///
    /// # Errors
    ///
    /// When there is no descriptor or thread to spare; nothing is left behind.
    pub(crate) fn wake(uffd: &Arc<Userfaultfd>) -> io::Result<Self> {
        let thread = UffdThread::start("pagefold-wake", Arc::clone(uffd), wake_late)?;
        Ok(Self { _thread: thread })
    }
}

fn wake_late(uffd: &Userfaultfd, stop: &Stop) {
    while stop.wait_for(uffd) && stop.wait(PATIENCE) {
        if let Err(error) = uffd.wake_all_unread() {
            log::error!("page faults may be held up for good: {error}");
        }
    }
}
