//! Operations on a VM, and why one may fail.

use std::fmt;
use std::time::Duration;

use pagefold_dedup::VmId;

use crate::vcpu::StopReason;
#[cfg(doc)]
use crate::vm::VmHandle;

/// An operation on a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// [`VmHandle::start`].
    Start,
    /// [`VmHandle::pause`].
    Pause,
    /// [`VmHandle::resume`].
    Resume,
    /// [`VmHandle::set_control`].
    Control,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Control => "control",
        })
    }
}

/// Why an operation on a VM failed; it goes on as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// It has never been started.
    #[error("cannot {operation} VM {vm}: it has not been started")]
    NotStarted {
        /// The VM.
        vm: VmId,
        /// The operation.
        operation: Operation,
    },
    /// It is paused, which is not left by starting.
    #[error("cannot start VM {vm}: it is paused, resume it")]
    Paused {
        /// The VM.
        vm: VmId,
    },
    /// It has stopped, or does so just now, and stays stopped.
    #[error("cannot {operation} VM {vm}: it has stopped")]
    Stopped {
        /// The VM.
        vm: VmId,
        /// The operation.
        operation: Operation,
    },
}

/// Why a guest was not found ready, or at rest; the VM goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The VM has never been started, so its guest will not get there.
    #[error("the guest of VM {vm} cannot be {awaited}: start the VM first")]
    NotStarted {
        /// The VM.
        vm: VmId,
        /// What was to be waited for.
        awaited: &'static str,
    },
    /// It did not report so in time.
    #[error("the guest of VM {vm} was not {awaited} within {} ms", timeout.as_millis())]
    TimedOut {
        /// The VM.
        vm: VmId,
        /// What was waited for.
        awaited: &'static str,
        /// For how long.
        timeout: Duration,
    },
    /// It stopped first.
    #[error("VM {vm} stopped before its guest was {awaited}: {reason}")]
    Stopped {
        /// The VM.
        vm: VmId,
        /// What was waited for.
        awaited: &'static str,
        /// Why it stopped.
        reason: StopReason,
    },
}
