//! What of a VM is to be folded.

use pagefold_dedup::DedupMode;
use serde::Deserialize;

use super::RequestBody;
use crate::api::GuestPhys;

/// The body of a request that changes a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct VmChange {
    dedup: DedupMode,
    /// Where the range begins that it is about, and its length in bytes; without them it is about
    /// the whole VM.
    gpa: Option<GuestPhys>,
    bytes: Option<u64>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum VmFolding {
    /// Of the VM.
    Mode(DedupMode),
    /// Of a range of it.
    Range { gpa: GuestPhys, len_bytes: u64, mergeable: bool },
}

impl RequestBody for VmChange {
    const HINT: &'static str = "send {\"dedup\": \"off\"}, \"zero\" or \"on\"; or, for a range of \
                                its memory, {\"dedup\": \"off\", \"gpa\": \"0x100000\", \"bytes\": \
                                4096}, or \"on\"";
}

impl VmChange {
    /// What it asks for; `None` if that makes no sense.
    pub(in crate::api) fn folding(self) -> Option<VmFolding> {
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
