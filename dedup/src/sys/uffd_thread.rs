//! A thread that waits at a userfaultfd until its owner is dropped.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use super::scratch::Scratch;
use super::uffd::Userfaultfd;
use crate::PAGE_SIZE;

/// The stack of a thread that waits, and calls the kernel, and may have to log that it failed.
const STACK_PAGES: u32 = 64;
const STACK_BYTES: usize = STACK_PAGES as usize * PAGE_SIZE;

/// What the standard library maps in a new thread for signals, at most. It ends the process if it cannot, so
/// it is seen before whether there is address space.
const SIGNAL_STACK_PAGES: u32 = 16;

/// Waits for as long as there is one.
#[derive(Debug)]
pub(super) struct UffdThread {
    thread: Option<JoinHandle<()>>,
    stop: Arc<Stop>,
}

/// When to end.
#[derive(Debug)]
pub(super) struct Stop(EventFd);

impl UffdThread {
    /// Starts a thread that does `work`, which returns once it is to stop.
    ///
    /// # Errors
    ///
    /// When there is no descriptor, thread or address space to spare; nothing is left behind.
    pub(super) fn start(
        name: &str,
        uffd: Arc<Userfaultfd>,
        work: fn(&Userfaultfd, &Stop),
    ) -> io::Result<Self> {
        let stop = Arc::new(Stop(EventFd::new(EFD_CLOEXEC)?));
        let until = Arc::clone(&stop);
        drop(Scratch::new(STACK_PAGES + SIGNAL_STACK_PAGES)?);
        let builder = Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || work(&uffd, &until))?;
        Ok(Self { thread: Some(thread), stop })
    }
}

impl Stop {
    /// Waits until there is something to be read from `uffd`; false if it is time to stop.
    pub(super) fn wait_for(&self, uffd: &Userfaultfd) -> bool {
        let mut ready = [self.wanted(), poll_in(uffd.as_raw_fd())];
        poll(&mut ready, None);
        ready[0].revents == 0
    }

    /// Waits so long; false if it is time to stop.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let mut ready = [self.wanted()];
        poll(&mut ready, Some(time));
        ready[0].revents == 0
    }

    fn wanted(&self) -> libc::pollfd {
        poll_in(self.0.as_raw_fd())
    }
}

fn poll_in(fd: libc::c_int) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

fn poll(ready: &mut [libc::pollfd], time: Option<Duration>) {
    let millis = time.map_or(-1, |time| time.as_millis().try_into().unwrap_or(libc::c_int::MAX));
    let count = ready.len() as libc::nfds_t;
    // SAFETY: the kernel reads and writes as many entries as the slice has, whose descriptors are open.
    unsafe { libc::poll(ready.as_mut_ptr(), count, millis) };
}

impl Drop for UffdThread {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        match self.stop.0.write(1) {
            Ok(()) => drop(thread.join()),
            Err(error) => log::error!("a thread is left behind: {error}"),
        }
    }
}
