//! Why a VM has stopped.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::InternalError;

/// Why a VM has stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StopReason {
    /// It was commanded to from outside.
    Requested,
    /// The guest halted with nothing that could wake it.
    Halted,
    /// The guest ended by itself with a code; 0 is success.
    Exited {
        /// The code.
        code: u32,
    },
    /// The guest turned its machine off.
    PoweredOff,
    /// The guest reset its machine, which microVMs do not survive.
    Reset,
    /// The guest crashed: a triple fault.
    TripleFault,
    /// The guest requested a reset, a power-off or the like.
    SystemEvent {
        /// `KVM_SYSTEM_EVENT_*`.
        event: u32,
    },
    /// The processor did not take the guest's state.
    FailEntry {
        /// The hardware's reason.
        reason: u64,
        /// The host CPU.
        cpu: u32,
    },
    /// KVM gave up on the guest.
    InternalError(InternalError),
    /// The guest touched memory that the host does not give.
    MemoryFault {
        /// Guest-physical address.
        address: u64,
        /// Bytes.
        len: u64,
    },
    /// The kernel refused to run the guest.
    RunFailed {
        /// The error number.
        errno: i32,
    },
    /// KVM left the guest for a reason that nothing here requests.
    Unexpected {
        /// The reason.
        exit: String,
    },
    /// The thread of the vCPU ended by a fault of the VMM.
    VcpuThreadFailed {
        /// What it could not do, or the message of its panic where that is text.
        message: String,
    },
}

impl StopReason {
    /// Whether the VM ended as it should: by command, by halting, with code 0, by turning itself off or by a
    /// reset. Everything else is a crash of the guest or of what runs it.
    pub fn is_clean(&self) -> bool {
        matches!(
            self,
            Self::Requested
                | Self::Halted
                | Self::Exited { code: 0 }
                | Self::PoweredOff
                | Self::Reset
        )
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("stopped on request"),
            Self::Halted => f.write_str("the guest halted"),
            Self::Exited { code } => write!(f, "the guest exited with code {code}"),
            Self::PoweredOff => f.write_str("the guest turned itself off"),
            Self::Reset => f.write_str("the guest reset itself"),
            Self::TripleFault => f.write_str("the guest crashed with a triple fault"),
            Self::SystemEvent { event } => write!(f, "the guest raised system event {event}"),
            Self::FailEntry { reason, cpu } => {
                write!(f, "CPU {cpu} refused the guest's state: hardware reason {reason:#x}")
            }
            Self::InternalError(error) => error.fmt(f),
            Self::MemoryFault { address, len } => {
                write!(f, "the host gives no memory for {len} bytes at guest address {address:#x}")
            }
            Self::RunFailed { errno } => {
                write!(f, "KVM_RUN failed: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Self::Unexpected { exit } => write!(f, "the guest was left for {exit}"),
            Self::VcpuThreadFailed { message } => write!(f, "the vCPU thread failed: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_and_ends_that_the_guest_wants_are_clean() {
        for reason in [
            StopReason::Requested,
            StopReason::Halted,
            StopReason::Exited { code: 0 },
            StopReason::PoweredOff,
            StopReason::Reset,
        ] {
            assert!(reason.is_clean(), "{reason}");
        }
        for reason in [
            StopReason::Exited { code: 1 },
            StopReason::TripleFault,
            StopReason::RunFailed { errno: libc::EFAULT },
            StopReason::InternalError(InternalError { suberror: 1, instruction: vec![0xcc] }),
        ] {
            assert!(!reason.is_clean(), "{reason}");
        }
    }

    #[test]
    fn a_reason_serializes_with_its_kind_and_details() {
        let json = |reason: &StopReason| serde_json::to_string(reason).unwrap();
        assert_eq!(json(&StopReason::TripleFault), r#"{"kind":"triple_fault"}"#);
        assert_eq!(json(&StopReason::Exited { code: 3 }), r#"{"kind":"exited","code":3}"#);
        let error = InternalError { suberror: 1, instruction: vec![0xcc] };
        assert_eq!(
            json(&StopReason::InternalError(error)),
            r#"{"kind":"internal_error","suberror":1,"instruction":[204]}"#
        );
    }
}
