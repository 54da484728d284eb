//! Taking a vCPU out of the guest.
//!
//! The kick signal is blocked in the vCPU's thread and let in by `KVM_RUN` alone. So one that is sent
//! before the thread enters the guest stays pending and ends the next `KVM_RUN` at once: no kick is
//! lost, and there is no flag to check and race with. Whoever has a command puts it where
//! the thread will look, and kicks; the thread consumes the kick first and looks afterwards.

use std::io;
use std::sync::{Mutex, PoisonError};

use kvm_ioctls::VcpuFd;

use crate::sys::signal::{self, ThreadId};

/// Whom to kick.
#[derive(Debug, Default)]
pub(super) struct Kick {
    /// The thread, from when it can be kicked until before it ends: the lock makes sure that its
    /// number is not somebody else's by the time of the kick.
    thread: Mutex<Option<ThreadId>>,
}

impl Kick {
    /// Enables kicks for the calling thread, which will run `vcpu`.
    pub(super) fn arm(&self, vcpu: &VcpuFd) -> io::Result<()> {
        signal::block_in_this_thread()?;
        signal::admit_kick_while_running(vcpu)?;
        self.set(Some(signal::current_thread()));
        Ok(())
    }

    /// The calling thread is about to end.
    pub(super) fn disarm(&self) {
        self.set(None);
    }

    /// Makes the running `KVM_RUN`, or else the next one, return; nothing once the thread has ended.
    pub(super) fn kick(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = *thread
            && let Err(error) = signal::kick(thread)
        {
            // The kernel has no reason to refuse a standard signal to a thread of our own.
            log::error!("cannot kick a vCPU thread: {error}");
        }
    }

    fn set(&self, thread: Option<ThreadId>) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = thread;
    }
}
