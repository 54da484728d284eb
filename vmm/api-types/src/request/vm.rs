//! What of a VM is to be folded.

use pagefold_dedup::DedupMode;
use serde::{Deserialize, Serialize};

use super::RequestBody;
use super::number::optional_number;
use crate::GuestPhys;

/// The body of a request that changes a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmChange {
    /// What is to be folded.
    pub dedup: DedupMode,
    /// Where the range begins that it is about; without one it is about the whole VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpa: Option<GuestPhys>,
    /// The length of the range; in JSON a number, or text that is read as that of `gpa` is.
    #[serde(
        default,
        deserialize_with = "optional_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub bytes: Option<u64>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmFolding {
    /// Of the VM.
    Mode(DedupMode),
    /// Of a range of it.
    Range {
        /// Where it begins.
        gpa: GuestPhys,
        /// How long it is.
        len_bytes: u64,
        /// Whether it may be folded.
        mergeable: bool,
    },
}

impl RequestBody for VmChange {
    const HINT: &'static str = "send {\"dedup\": \"off\"}, \"zero\" or \"on\"; or, for a range of \
                                its memory, {\"dedup\": \"off\", \"gpa\": \"0x100000\", \"bytes\": \
                                \"4K\"}, or \"on\"";
}

impl VmChange {
    /// The change requested; `None` if it makes no sense.
    pub fn folding(self) -> Option<VmFolding> {
        match (self.dedup, self.gpa, self.bytes) {
            (mode, None, None) => Some(VmFolding::Mode(mode)),
            (DedupMode::Off, Some(gpa), Some(len_bytes)) => {
                Some(VmFolding::Range { gpa, len_bytes, mergeable: false })
            }
            (DedupMode::On, Some(gpa), Some(len_bytes)) => {
                Some(VmFolding::Range { gpa, len_bytes, mergeable: true })
            }
            _ => None,
        }
    }
}
