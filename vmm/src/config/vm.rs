//! What a VM is to be.

use pagefold_dedup::DedupMode;

use super::guest::{BuiltinGuest, Guest};

/// What a VM is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmConfig {
    /// Its memory in bytes, a multiple of 4096. What does not fit below 3 GiB lies from 4 GiB on.
    pub memory_bytes: u64,
    /// How many vCPUs it has.
    pub vcpus: u32,
    /// What runs in it.
    pub guest: Guest,
    /// What folding may do with it.
    pub dedup: DedupMode,
    /// A name for people, 1 to 255 bytes without control characters; ids are what distinguishes VMs.
    pub name: Option<String>,
}

impl VmConfig {
    /// A VM with one vCPU and `memory_bytes` of memory that is folded and runs the built-in guest.
    pub fn builtin(memory_bytes: u64, guest: BuiltinGuest) -> Self {
        Self {
            memory_bytes,
            vcpus: 1,
            guest: Guest::Builtin(guest),
            dedup: DedupMode::On,
            name: None,
        }
    }
}
