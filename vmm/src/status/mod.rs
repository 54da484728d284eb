//! The state and the counters of a VM.

mod guest_report;

use std::fmt;

use pagefold_dedup::VmId;
pub use pagefold_devices::Unclaimed;
pub use pagefold_devices::virtio::block::BlockCounts;
pub use pagefold_devices::virtio::mmio::TransportCounts;
pub use pagefold_devices::virtio::rng::RngCounts;
pub use pagefold_devices::virtio::{DeviceCounts, VirtioCounts};
use serde::{Deserialize, Serialize};

use crate::config::DedupMode;
use crate::vcpu::StopReason;
pub use guest_report::GuestReport;

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
    /// What runs in it, as a [`Guest`](crate::Guest) is displayed.
    pub guest: String,
    /// What folding may do with it.
    pub dedup: DedupMode,
    /// Where it is in its life.
    pub state: VmState,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// Milliseconds from its start until its guest reported that it was ready.
    pub ready_ms: Option<u64>,
    /// What its guest has reported of itself, which [`BuiltinStatus::of`](crate::BuiltinStatus::of) reads. In JSON its
    /// fields are beside the others.
    #[serde(flatten)]
    pub report: GuestReport,
    /// Accesses of its vCPUs to ports that no device is at.
    pub unclaimed_ports: Unclaimed,
    /// Accesses of its vCPUs to guest-physical addresses that neither memory nor a device is at.
    pub unclaimed_mmio: Unclaimed,
    /// What its virtio devices have done, disks first, in the order in which they were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceStatus>,
    /// Why it has stopped.
    pub stop_reason: Option<StopReason>,
    /// The same in words.
    pub stop_message: Option<String>,
    /// Whether it ended as it should.
    pub clean: Option<bool>,
}

/// What a virtio device has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// What it is called: `disk0`, `disk1`, …, `rng`.
    pub name: String,
    /// Its counters, since it was made. In JSON they are beside the name.
    #[serde(flatten)]
    pub counts: VirtioCounts,
}
