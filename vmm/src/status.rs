//! The state and the counters of a VM.

use std::fmt;

use pagefold_dedup::VmId;
pub use pagefold_devices::Unclaimed;
use serde::{Deserialize, Serialize};

use crate::builtin::BuiltinStatus;
use crate::config::DedupMode;
use crate::vcpu::StopReason;

/// Where a VM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// Built, and not yet started.
    Created,
    /// Running.
    Running,
    /// Out of the guest until it is resumed.
    Paused,
    /// Ended, and everything it had is given back.
    Stopped,
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// A VM as it is now, or, once it has stopped, as it was last. What is not known is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStatus {
    /// The VM.
    pub id: VmId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What runs in it: `builtin:NAME`.
    pub guest: String,
    /// What folding may do with it.
    pub dedup: DedupMode,
    /// Where it is in its life.
    pub state: VmState,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// Milliseconds from its start until its guest reported that it was ready.
    pub ready_ms: Option<u64>,
    /// What the built-in guest, or a flat image that prints as it does, has reported; `None` of another.
    /// In JSON its fields are beside the others.
    #[serde(flatten)]
    pub builtin: Option<BuiltinStatus>,
    /// Accesses of its vCPUs to ports that no device is at.
    pub unclaimed_ports: Unclaimed,
    /// Accesses of its vCPUs to guest-physical addresses that neither memory nor a device is at.
    pub unclaimed_mmio: Unclaimed,
    /// Why it has stopped.
    pub stop_reason: Option<StopReason>,
    /// The same in words.
    pub stop_message: Option<String>,
    /// Whether it ended as it should.
    pub clean: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_json_all_fields_are_beside_each_other_and_read_back() {
        let mut status = VmStatus {
            id: VmId(3),
            name: None,
            guest: "builtin:mix".to_owned(),
            dedup: DedupMode::On,
            state: VmState::Stopped,
            memory_bytes: 4096,
            ready_ms: Some(1),
            builtin: Some(BuiltinStatus { writes: Some(2), ..BuiltinStatus::default() }),
            unclaimed_ports: Unclaimed { reads: 3, writes: 4 },
            unclaimed_mmio: Unclaimed::default(),
            stop_reason: Some(StopReason::Exited { code: 0 }),
            stop_message: Some("ended".to_owned()),
            clean: Some(true),
        };
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(
            json,
            r#"{"id":3,"name":null,"guest":"builtin:mix","dedup":"on","state":"stopped","#
                .to_owned()
                + r#""memory_bytes":4096,"ready_ms":1,"resting":false,"writes":2,"#
                + r#""verifications":null,"corrupt":null,"corrupt_lines":[],"panic":null,"#
                + r#""unclaimed_ports":{"reads":3,"writes":4},"#
                + r#""unclaimed_mmio":{"reads":0,"writes":0},"#
                + r#""stop_reason":{"kind":"exited","code":0},"stop_message":"ended","clean":true}"#
        );
        assert_eq!(serde_json::from_str::<VmStatus>(&json).unwrap(), status);
        status.builtin = None;
        let json = serde_json::to_string(&status).unwrap();
        assert!(!json.contains("corrupt"), "{json}");
        assert_eq!(serde_json::from_str::<VmStatus>(&json).unwrap(), status);
    }
}
