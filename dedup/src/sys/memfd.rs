//! The file behind a store.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::rlimit::max_file_bytes;
use super::small_pages;
use crate::{PAGE_SIZE, Slot};

/// The files behind all stores of this process, and some that are gone.
static STORES: Mutex<Vec<Weak<File>>> = Mutex::new(Vec::new());

/// A memfd, or a read-only descriptor of one.
#[derive(Debug, Clone)]
pub(crate) struct Memfd(Arc<File>);

/// Bytes of memory or swap that all stores of this process hold, whatever engine they belong to: a
/// shared page once, however many VMs it is mapped in. O(stores).
pub fn resident_store_bytes() -> u64 {
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    stores.retain(|store| store.strong_count() > 0);
    let files = stores.iter().filter_map(Weak::upgrade);
    // One that the kernel does not report counts as empty: the result is what is certainly there.
    files.filter_map(|file| Some(file.metadata().ok()?.blocks() * 512)).sum()
}

/// That a file may be so long. Where it may not, the kernel would send SIGXFSZ, too, which ends a program that
/// does not handle it; and the limit can be lowered at any time.
fn check_file_limit(len_bytes: u64) -> io::Result<()> {
    if max_file_bytes()? < len_bytes {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(())
}

impl Memfd {
    /// A sparse memfd of `slot_count` pages that only its owner may open again, and only to read.
    ///
    /// # Errors
    ///
    /// The kernel's, or `EFBIG` where the limit on file sizes would be exceeded; nothing is left open.
    pub(crate) fn new(slot_count: u32) -> io::Result<Self> {
        let len_bytes = u64::from(slot_count) * PAGE_SIZE as u64;
        check_file_limit(len_bytes)?;
        // SAFETY: the name is a C string; the call returns a new descriptor or -1.
        let fd = unsafe { libc::memfd_create(c"pagefold-store".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened this descriptor for us, and nothing else uses it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(len_bytes)?;
        file.set_permissions(Permissions::from_mode(0o400))?;
        let file = Arc::new(file);
        STORES.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&file));
        Ok(Self(file))
    }

    /// Another descriptor of the same memory that cannot be written through.
    ///
    /// # Errors
    ///
    /// The kernel's, when `/proc` is not there.
    pub(crate) fn read_only(&self) -> io::Result<Self> {
        File::open(format!("/proc/self/fd/{}", self.0.as_raw_fd())).map(|file| Self(Arc::new(file)))
    }

    /// Writes whole pages from `slot` on. They take no more memory than that, whatever huge pages the
    /// machine has for files, unless it was set to have some within the last tenth of a second.
    ///
    /// # Errors
    ///
    /// The kernel's (`ENOSPC`, `ENOMEM`), or `EFBIG` beyond the limit on file sizes; a part may be written.
    pub(crate) fn write(&self, slot: Slot, pages: &[u8]) -> io::Result<()> {
        let offset_bytes = u64::from(slot.0) * PAGE_SIZE as u64;
        check_file_limit(offset_bytes + pages.len() as u64)?;
        if small_pages::are_needed() {
            small_pages::allocate(self.raw(), offset_bytes, pages.len())?;
        }
        self.0.write_all_at(pages, offset_bytes)
    }

    /// Reads one page.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn read(&self, slot: Slot, page: &mut [u8; PAGE_SIZE]) -> io::Result<()> {
        self.0.read_exact_at(page, u64::from(slot.0) * PAGE_SIZE as u64)
    }

    /// Gives the memory of `slot_count` slots from `slot` on back to the kernel; they read as
    /// zeroes afterwards.
    ///
    /// # Errors
    ///
    /// The kernel's; some of the slots may be as they were.
    pub(crate) fn punch(&self, slot: Slot, slot_count: usize) -> io::Result<()> {
        let flags = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let len_bytes = (slot_count * PAGE_SIZE).cast_signed() as i64;
        let offset = i64::from(slot.0) * PAGE_SIZE.cast_signed() as i64;
        // SAFETY: takes integers only, on a descriptor that `self` keeps open.
        let result = unsafe { libc::fallocate(self.raw(), flags, offset, len_bytes) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The first slot from `slot` on that the kernel holds memory for, if there is one. O(1) in slots that
    /// it holds none for.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn next_page(&self, slot: Slot) -> io::Result<Option<Slot>> {
        let offset = i64::from(slot.0) * PAGE_SIZE.cast_signed() as i64;
        // SAFETY: takes integers only, on a descriptor that `self` keeps open. Nobody goes by its position.
        let found = unsafe { libc::lseek(self.raw(), offset, libc::SEEK_DATA) };
        if found < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ENXIO) { Ok(None) } else { Err(error) };
        }
        let number = u32::try_from(found / PAGE_SIZE.cast_signed() as i64);
        number.map(|number| Some(Slot(number))).map_err(io::Error::other)
    }

    /// Bytes of memory that the kernel holds for the file.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn resident_bytes(&self) -> io::Result<u64> {
        // st_blocks counts units of 512 bytes whatever the file system.
        Ok(self.0.metadata()?.blocks() * 512)
    }

    /// The inode number, by which `/proc/self/maps` names the file.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn inode(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.ino())
    }

    pub(super) fn raw(&self) -> libc::c_int {
        self.0.as_raw_fd()
    }
}
