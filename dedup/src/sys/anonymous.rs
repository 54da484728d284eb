//! Guest memory that belongs to no VM: for images, tests and embedders without vm-memory.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use super::memory::{GuestMemory, Region};
use crate::{LinearIndex, PAGE_SIZE};

/// Private anonymous memory, zero when made, unmapped when dropped.
#[derive(Debug)]
pub struct AnonymousMemory {
    base: NonNull<u8>,
    region: [Region; 1],
}

impl AnonymousMemory {
    /// Maps `count_pages` pages, as one region from linear index and guest-physical address 0.
    ///
    /// # Errors
    ///
    /// The kernel's refusal (`ENOMEM`), or `InvalidInput` for no pages at all; nothing is mapped.
    pub fn new(count_pages: u32) -> io::Result<Self> {
        let len_bytes = count_pages as usize * PAGE_SIZE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing
        // that exists; a zero length is refused by the kernel.
        let addr = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        let base = match NonNull::new(addr.cast::<u8>()) {
            Some(base) if addr != libc::MAP_FAILED => base,
            _ => return Err(io::Error::last_os_error()),
        };
        let region = Region {
            linear: LinearIndex(0),
            count_pages,
            guest_phys: 0,
            host_addr: base.as_ptr() as usize,
        };
        Ok(Self { base, region: [region] })
    }

    /// Copies `bytes` to `offset_bytes`.
    ///
    /// # Panics
    ///
    /// When the bytes do not fit.
    pub fn write(&self, offset_bytes: usize, bytes: &[u8]) {
        let destination = self.bytes_at(offset_bytes, bytes.len());
        // SAFETY: the destination is inside the mapping, which lives as long as `self` and to
        // which no reference exists; `bytes` cannot overlap it for the same reason.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), destination, bytes.len()) };
    }

    /// Copies the bytes at `offset_bytes` to `bytes`.
    ///
    /// # Panics
    ///
    /// When there are not that many.
    pub fn read(&self, offset_bytes: usize, bytes: &mut [u8]) {
        let source = self.bytes_at(offset_bytes, bytes.len());
        // SAFETY: as in `write`, with the roles exchanged.
        unsafe { ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), bytes.len()) };
    }

    /// Writes the `u64` at `offset_bytes` and returns what it was, in one atomic step: a writer
    /// that races merges and sees at once if one of its writes was lost.
    ///
    /// # Panics
    ///
    /// When the offset is not that of an aligned word inside.
    pub fn swap(&self, offset_bytes: usize, value: u64) -> u64 {
        assert!(offset_bytes.is_multiple_of(size_of::<u64>()), "unaligned offset {offset_bytes}");
        let word = self.bytes_at(offset_bytes, size_of::<u64>());
        // SAFETY: inside the mapping, aligned (checked above; the mapping is page-aligned), and
        // only ever accessed through raw pointers.
        let word = unsafe { AtomicU64::from_ptr(word.cast()) };
        word.swap(value, Ordering::Relaxed)
    }

    /// Bytes in the mapping.
    pub fn len_bytes(&self) -> usize {
        self.region[0].len_bytes()
    }

    /// The address of `count_bytes` bytes that lie inside.
    fn bytes_at(&self, offset_bytes: usize, count_bytes: usize) -> *mut u8 {
        let end = offset_bytes.checked_add(count_bytes);
        assert!(
            end.is_some_and(|end| end <= self.len_bytes()),
            "{count_bytes} bytes at {offset_bytes} do not fit in {}",
            self.len_bytes()
        );
        // SAFETY: inside the mapping, as was just checked.
        unsafe { self.base.as_ptr().add(offset_bytes) }
    }
}

// SAFETY: the mapping is plain memory of the process, and all access goes through copies and
// atomics on raw pointers.
unsafe impl Send for AnonymousMemory {}
// SAFETY: as for `Send`.
unsafe impl Sync for AnonymousMemory {}

// SAFETY: `new` made the mapping as the contract asks, `drop` alone removes it, and no reference
// into it is ever handed out.
unsafe impl GuestMemory for AnonymousMemory {
    fn regions(&self) -> &[Region] {
        &self.region
    }
}

impl Drop for AnonymousMemory {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped (whatever was mapped over it since lies
        // inside); nothing can use it any more, as `self` is gone.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len_bytes()) };
    }
}
