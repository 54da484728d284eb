//! Why guest RAM could not be made.

use std::io;

use vm_memory::mmap::{FromRangesError, MmapRegionError};

use super::addresses::MAX_MEMORY_BYTES;

/// Why guest RAM could not be made; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum GuestRamError {
    /// The size is zero or not a whole number of pages.
    #[error(
        "a VM's memory is a multiple of 4096 bytes, and not empty: {memory_bytes} bytes is not"
    )]
    NotPages {
        /// The size requested.
        memory_bytes: u64,
    },
    /// The size is above [`MAX_MEMORY_BYTES`].
    #[error(
        "a VM can have at most {} MiB of memory, and {} MiB was asked for: use more VMs, or \
         smaller ones",
        MAX_MEMORY_BYTES >> 20,
        memory_bytes >> 20
    )]
    TooLarge {
        /// The size requested.
        memory_bytes: u64,
    },
    /// The host does not map that much.
    #[error(
        "cannot map {memory_bytes} bytes of guest memory: see the limits on address space (ulimit \
         -v) and on mappings (sysctl vm.max_map_count)"
    )]
    Map {
        /// The size requested.
        memory_bytes: u64,
        /// vm-memory's reason.
        #[source]
        source: FromRangesError,
    },
    /// The kernel refused advice on the mapping, without which guests would leak into children and
    /// core dumps, or could not be folded.
    #[error("cannot set {advice} on guest memory")]
    Advise {
        /// The name of the advice, as in madvise(2).
        advice: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

impl GuestRamError {
    /// The kernel's error where it was the kernel that refused.
    pub fn os_error(&self) -> Option<&io::Error> {
        match self {
            Self::Map {
                source: FromRangesError::MmapRegion(MmapRegionError::Mmap(error)), ..
            }
            | Self::Advise { source: error, .. } => Some(error),
            _ => None,
        }
    }
}
