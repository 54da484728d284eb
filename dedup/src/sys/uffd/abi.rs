//! The kernel's interface: `linux/userfaultfd.h`.

use vmm_sys_util::{ioctl_io_nr, ioctl_ior_nr, ioctl_iowr_nr};

pub(super) const UFFD_API: u64 = 0xaa;
pub(super) const UFFD_EVENT_PAGEFAULT: u8 = 0x12;
pub(super) const UFFD_USER_MODE_ONLY: libc::c_int = 1;
pub(super) const UFFD_FEATURE_PAGEFAULT_FLAG_WP: u64 = 1 << 0;
pub(super) const UFFD_FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
pub(super) const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
pub(super) const UFFD_FEATURE_EVENT_REMAP: u64 = 1 << 2;
pub(super) const UFFD_FEATURE_MOVE: u64 = 1 << 16;
pub(super) const UFFDIO_REGISTER_MODE_MISSING: u64 = 1 << 0;
pub(super) const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
pub(super) const UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES: u64 = 1 << 1;
pub(super) const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1 << 0;

#[repr(C)]
pub(super) struct Api {
    pub(super) version: u64,
    pub(super) features: u64,
    pub(super) ioctls: u64,
}

#[repr(C)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) len: u64,
}

#[repr(C)]
pub(super) struct Register {
    pub(super) range: Range,
    pub(super) mode: u64,
    pub(super) ioctls: u64,
}

#[repr(C)]
pub(super) struct WriteProtect {
    pub(super) range: Range,
    pub(super) mode: u64,
}

#[repr(C)]
pub(super) struct Move {
    pub(super) destination: u64,
    pub(super) source: u64,
    pub(super) len: u64,
    pub(super) mode: u64,
    pub(super) moved: i64,
}

/// `struct uffd_msg`; the address is that of a page fault, elsewhere something else.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Message {
    pub(super) event: u8,
    reserved: [u8; 7],
    pub(super) flags: u64,
    pub(super) address: u64,
    pub(super) thread: u64,
}

ioctl_iowr_nr!(UFFDIO_API, 0xaa, 0x3f, Api);
ioctl_iowr_nr!(UFFDIO_REGISTER, 0xaa, 0x00, Register);
ioctl_ior_nr!(UFFDIO_UNREGISTER, 0xaa, 0x01, Range);
ioctl_ior_nr!(UFFDIO_WAKE, 0xaa, 0x02, Range);
ioctl_iowr_nr!(UFFDIO_MOVE, 0xaa, 0x05, Move);
ioctl_iowr_nr!(UFFDIO_WRITEPROTECT, 0xaa, 0x06, WriteProtect);
ioctl_io_nr!(USERFAULTFD_IOC_NEW, 0xaa, 0x00);
