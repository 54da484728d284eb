//! What there is to know about a VM.

use std::fmt;

use pagefold_dedup::VmId;
use serde::{Deserialize, Serialize};

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
    /// Milliseconds from its start until its guest said that it was ready.
    pub ready_ms: Option<u64>,
    /// Whether the guest, told to rest, has said that every page holds its resting content.
    pub resting: bool,
    /// Pages its guest has written since it was ready, by its last word.
    pub writes: Option<u64>,
    /// Pages its guest has verified, by its last word.
    pub verifications: Option<u64>,
    /// Pages its guest has found wrong, by its last word: not known before the guest's first tally.
    pub corrupt: Option<u64>,
    /// The first such findings, as the guest printed them.
    pub corrupt_lines: Vec<String>,
    /// What the guest printed when it gave up.
    pub panic: Option<String>,
    /// Why it has stopped.
    pub stop_reason: Option<StopReason>,
    /// The same in words.
    pub stop_message: Option<String>,
    /// Whether it ended as it should.
    pub clean: Option<bool>,
}
