//! Memory that cannot be folded, recognized before anything is done to it.

use std::io;
use std::ops::Range;

use super::bounds::MappingBounds;
use super::locked::is_locked;
use super::maps::ProcessMapping;
use super::span::Span;

/// Why memory cannot be folded. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum UnfoldableMemory {
    /// The process locks whatever it maps.
    #[error(
        "the process locks all memory that it maps (mlockall with MCL_FUTURE), so that the kernel \
         would copy every shared page at once; call munlockall, and lock what has to be with mlock"
    )]
    LocksNewMappings,
    /// The memory is locked.
    #[error(
        "the memory at {host_addr:#x} is locked (mlock or mlockall), so that the kernel would copy \
         every shared page at once; unlock it with munlock, or switch folding off for the VM"
    )]
    Locked {
        /// An address in it.
        host_addr: usize,
    },
    /// The memory consists of huge pages that cannot be split.
    #[error(
        "the memory at {host_addr:#x} is hugetlb memory, whose pages cannot be shared in part; use \
         ordinary memory, or switch folding off for the VM"
    )]
    Hugetlb {
        /// An address in it.
        host_addr: usize,
    },
    /// Folding would change what is seen there, or by whom.
    #[error(
        "the memory at {host_addr:#x} is not private anonymous memory that can be read and written"
    )]
    NotAnonymous {
        /// An address in it.
        host_addr: usize,
    },
    /// Nothing is mapped there.
    #[error("nothing is mapped at {host_addr:#x}, where the VM is said to have memory")]
    Hole {
        /// The address.
        host_addr: usize,
    },
    /// The kernel did not report what is mapped.
    #[error("cannot read the process's mappings; is /proc mounted?")]
    Read(#[source] io::Error),
}

impl Span<'_> {
    /// Finds out whether the memory can be folded, and the addresses of its mappings. O(mappings of the
    /// span) with `bounds`, O(mappings of the process) without.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(crate) fn check_foldable(
        self,
        bounds: Option<&MappingBounds>,
    ) -> Result<Vec<Range<usize>>, UnfoldableMemory> {
        let mut found = Vec::new();
        let all = match bounds {
            Some(_) => Vec::new(),
            None => ProcessMapping::all().map_err(UnfoldableMemory::Read)?,
        };
        let (mut host_addr, end) = (self.start(), self.start() + self.len_bytes());
        while host_addr < end {
            let mapping = match bounds {
                Some(bounds) => bounds.mapping(host_addr).ok(),
                None => all.iter().find(|mapping| mapping.range.contains(&host_addr)).cloned(),
            };
            let Some(mapping) = mapping.filter(|it| it.range.contains(&host_addr)) else {
                return Err(UnfoldableMemory::Hole { host_addr });
            };
            if mapping.is_hugetlb {
                return Err(UnfoldableMemory::Hugetlb { host_addr });
            }
            if mapping.inode != 0 || !mapping.is_private_memory {
                return Err(UnfoldableMemory::NotAnonymous { host_addr });
            }
            let len_bytes = mapping.range.end.min(end) - host_addr;
            if is_locked(host_addr as *mut libc::c_void, len_bytes) {
                return Err(UnfoldableMemory::Locked { host_addr });
            }
            found.push(host_addr..host_addr + len_bytes);
            host_addr = mapping.range.end;
        }
        Ok(found)
    }
}
