//! Memory that cannot be folded, told apart before anything is done to it.

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bounds::MappingBounds;
use super::maps::ProcessMapping;
use super::span::Span;
use crate::PAGE_SIZE;

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
    /// The kernel did not say what is mapped.
    #[error("cannot read the process's mappings; is /proc mounted?")]
    Read(#[source] io::Error),
}

impl Span<'_> {
    /// Whether any of its mappings is locked. O(mappings of the span).
    pub(crate) fn is_locked(self) -> bool {
        is_locked(self.as_ptr(), self.len_bytes())
    }

    /// Locks its memory: all of it if `is_whole` says so, and otherwise what is there now, and the rest
    /// when it is first used. O(pages).
    ///
    /// # Errors
    ///
    /// The kernel's (`ENOMEM` or `EAGAIN` beyond `RLIMIT_MEMLOCK`); some of it may be locked.
    ///
    /// Source: `mlock2(2)`.
    pub(crate) fn lock(self, is_whole: bool) -> io::Result<()> {
        let flags = if is_whole { 0 } else { libc::MLOCK_ONFAULT };
        // SAFETY: changes no byte and no reference to one; the addresses are the span's.
        let result = unsafe { libc::mlock2(self.as_ptr(), self.len_bytes(), flags) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

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

/// Whether the process locks whatever it maps from now on.
///
/// # Errors
///
/// The kernel's, when it does not let a page be mapped to find out.
pub(crate) fn locks_new_mappings() -> io::Result<bool> {
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists. Nobody
    // may touch it, so that it is not populated.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            PAGE_SIZE,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        let error = io::Error::last_os_error();
        // Nothing more can be locked, so that nothing can be mapped.
        return if error.raw_os_error() == Some(libc::EAGAIN) { Ok(true) } else { Err(error) };
    }
    let is_locked = is_locked(page, PAGE_SIZE);
    // SAFETY: just what was mapped, which nobody else knows of.
    unsafe { libc::munmap(page, PAGE_SIZE) };
    Ok(is_locked)
}

/// What was [noted](note_locked_bytes) last.
static LOCKED_BYTES: AtomicU64 = AtomicU64::new(UNKNOWN);

const UNKNOWN: u64 = u64::MAX;

/// Asks how much memory the process has locked, for all VMs at once: that takes as long as visiting an idle VM.
pub(crate) fn note_locked_bytes() {
    LOCKED_BYTES.store(read_locked_bytes().unwrap_or(UNKNOWN), Ordering::Relaxed);
}

/// Bytes of memory that the process had locked when that was last asked, if `/proc` said.
pub(crate) fn locked_bytes() -> Option<u64> {
    Some(LOCKED_BYTES.load(Ordering::Relaxed)).filter(|&bytes| bytes != UNKNOWN)
}

fn read_locked_bytes() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Whether any mapping in a range of addresses is locked, by msync(2), which refuses to invalidate such.
fn is_locked(addr: *mut libc::c_void, len_bytes: usize) -> bool {
    // SAFETY: changes nothing: there is nothing to invalidate in Linux, and writes are begun by
    // MS_SYNC only.
    let result = unsafe { libc::msync(addr, len_bytes, libc::MS_ASYNC | libc::MS_INVALIDATE) };
    result != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EBUSY)
}
