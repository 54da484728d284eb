//! The contract between guest memory and the code that folds it.

use crate::{LinearIndex, PAGE_SIZE};

/// An interval of linear indexes with where the guest and where the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// The first page's linear index.
    pub linear: LinearIndex,
    /// The number of pages.
    pub page_count: u32,
    /// The first page's guest-physical address, in bytes.
    pub gpa: u64,
    /// The first page's address in this process, in bytes.
    pub host_addr: usize,
}

impl Region {
    /// One above the last page's linear index.
    pub fn end(&self) -> LinearIndex {
        self.linear.offset(self.page_count)
    }

    /// The region's size in bytes.
    pub fn len_bytes(&self) -> usize {
        self.page_count as usize * PAGE_SIZE
    }
}

/// Memory of one VM that may be folded.
///
/// # Safety
///
/// For as long as the value lives, each region must be a page-aligned mapping of this process,
/// private and anonymous, readable and writable, of exactly the given length, disjoint from every
/// other region and from any other value's; and whoever holds the memory must allow this crate to
/// write-protect its pages, to replace their mappings by others of the same bytes, and by empty
/// ones when the VM is detached or [`Engine::relocate`](crate::Engine::relocate) has moved its
/// pages to other memory. Whatever the mappings become, they stay readable, writable and private to
/// the process, and there is no hole between them: who made the memory unmaps it when the value is
/// dropped, and not before. The crate keeps the value for as long as a page of the VM lies in it.
/// No Rust reference into the memory may exist; access is by raw
/// pointers or volatile copies, as vm-memory does it. Nothing may hold its pages pinned for
/// writing (VFIO, a `vhost-user` back end, `O_DIRECT` reads in flight): such a write would go to a
/// page that the guest no longer sees.
///
/// Memory that is locked (mlock(2)) is not folded, and stays locked: also where it is given up, or its VM has
/// ended, and what is moved to other memory is locked there. If the limit on locked memory (`RLIMIT_MEMLOCK`) does not
/// allow that any more, the lock is lost, which is logged and counted as an error. And nobody may lock it while a
/// [`step`](crate::Engine::step), or any other call that maps its pages (one that compacts, moves, recovers,
/// discards, detaches or relocates), is under way: if that maps the page in the same moment, the lock is lost
/// although mlock(2) has succeeded. No byte is. Whoever owns the engine can lock memory between such calls, and
/// anybody before the VM is attached: that is refused then.
pub unsafe trait GuestMemory: Send + Sync {
    /// The regions; the answer never changes, even when the pages of a VM are moved elsewhere.
    fn regions(&self) -> &[Region];

    /// Whether the kernel may write to it on the process's behalf: KVM for a guest, or a system call that
    /// is given an address in it. It then takes a userfaultfd that holds off the kernel's faults, which
    /// needs a privilege. If not, and the process has none, such a write fails with `EFAULT` while its
    /// page is being merged. The answer never changes.
    fn is_written_by_kernel(&self) -> bool {
        true
    }
}
