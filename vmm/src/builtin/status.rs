//! What the built-in guest has reported, for people and programs.

use serde::{Deserialize, Serialize};

use crate::status::{GuestReport, VmStatus};

/// What the built-in guest, or a flat image that prints as it does, has reported. What is not known is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltinStatus {
    /// Whether the guest, commanded to rest, has reported that every page holds its resting content.
    pub resting: bool,
    /// Pages its guest has written since it was ready, by its last report.
    pub writes: Option<u64>,
    /// Pages its guest has verified, by its last report.
    pub verifications: Option<u64>,
    /// Pages its guest has found wrong, by its last report: not known before the guest's first tally.
    pub corrupt: Option<u64>,
    /// The first such findings, as the guest printed them.
    pub corrupt_lines: Vec<String>,
    /// What the guest printed when it gave up.
    pub panic: Option<String>,
}

impl BuiltinStatus {
    /// What the guest of `vm` has reported, if that is the built-in guest or prints as it does; `None` of another.
    pub fn of(vm: &VmStatus) -> Option<Self> {
        vm.report.read()
    }
}

impl From<BuiltinStatus> for GuestReport {
    fn from(status: BuiltinStatus) -> Self {
        Self::new(&status)
    }
}

#[cfg(test)]
mod tests {
    use pagefold_dedup::VmId;

    use super::*;
    use crate::config::DedupMode;
    use crate::status::{Unclaimed, VmState};
    use crate::vcpu::StopReason;

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
            report: BuiltinStatus { writes: Some(2), ..BuiltinStatus::default() }.into(),
            unclaimed_ports: Unclaimed { reads: 3, writes: 4 },
            unclaimed_mmio: Unclaimed::default(),
            devices: Vec::new(),
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
        status.report = GuestReport::default();
        let json = serde_json::to_string(&status).unwrap();
        assert!(!json.contains("corrupt"), "{json}");
        assert_eq!(serde_json::from_str::<VmStatus>(&json).unwrap(), status);
    }
}
