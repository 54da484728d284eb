//! Guest memory that belongs to no VM: for images, tests and embedders without vm-memory.

use std::io;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use super::copy::racy_copy;
use super::maps::ProcessMapping;
use super::memory::{GuestMemory, Region};
use super::pagemap::Pagemap;
use super::span::Span;
use crate::{LinearIndex, PAGE_SIZE};

/// Private anonymous memory, zero when made, unmapped when dropped.
///
/// It stays the owner of its addresses when pages of a VM are [moved](crate::Engine::relocate)
/// away from them or to them: reading and writing here is reading and writing whatever is there.
#[derive(Debug)]
pub struct AnonymousMemory {
    base: NonNull<u8>,
    len_bytes: usize,
    regions: Box<[Region]>,
    is_written_by_kernel: bool,
}

impl AnonymousMemory {
    /// Maps `page_count` pages, as one region from linear index and guest-physical address 0.
    ///
    /// # Errors
    ///
    /// The kernel's refusal (`ENOMEM`), or `InvalidInput` for no pages at all; nothing is mapped.
    pub fn new(page_count: u32) -> io::Result<Self> {
        Self::with_layout(&[(0, page_count)])
    }

    /// Maps memory that the guest sees in pieces: a guest-physical address, in bytes, and a number
    /// of pages for each. They become one region each, one behind the other by linear index and
    /// host address.
    ///
    /// # Errors
    ///
    /// The kernel's refusal (`ENOMEM`), or `InvalidInput` for no pages at all or more than an index
    /// can number; nothing is mapped.
    pub fn with_layout(pieces: &[(u64, u32)]) -> io::Result<Self> {
        let page_count = pieces.iter().try_fold(0_u32, |sum, &(_, count)| sum.checked_add(count));
        let page_count = page_count.ok_or(io::ErrorKind::InvalidInput)?;
        let len_bytes = page_count as usize * PAGE_SIZE;
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
        let mut linear = LinearIndex(0);
        let region = |&(gpa, page_count): &(u64, u32)| {
            let host_addr = base.as_ptr() as usize + linear.0 as usize * PAGE_SIZE;
            let region = Region { linear, page_count, gpa, host_addr };
            linear = region.end();
            region
        };
        let regions = pieces.iter().map(region).collect();
        Ok(Self { base, len_bytes, regions, is_written_by_kernel: false })
    }

    /// The same, for KVM, or system calls that are given addresses in it, to write to: see
    /// [`GuestMemory::is_written_by_kernel`].
    #[must_use]
    pub fn written_by_kernel(mut self) -> Self {
        self.is_written_by_kernel = true;
        self
    }

    /// Copies `bytes` to `offset_bytes`. Who reads there meanwhile may see a mixture of old and new.
    ///
    /// # Panics
    ///
    /// When the bytes do not fit.
    pub fn write(&self, offset_bytes: usize, bytes: &[u8]) {
        let destination = self.bytes_at(offset_bytes, bytes.len());
        // SAFETY: the destination has room for them inside the mapping, which is writable, lives as
        // long as `self`, and to which no reference exists.
        unsafe { racy_copy(bytes.as_ptr(), destination, bytes.len()) };
    }

    /// Copies the bytes at `offset_bytes` to `bytes`: a mixture of old and new, if somebody writes
    /// there meanwhile.
    ///
    /// # Panics
    ///
    /// When there are not that many.
    pub fn read(&self, offset_bytes: usize, bytes: &mut [u8]) {
        let source = self.bytes_at(offset_bytes, bytes.len());
        // SAFETY: as many bytes lie at the source, inside the mapping, which is readable, lives as
        // long as `self`, and to which no reference exists; `bytes` is this thread's alone.
        unsafe { racy_copy(source, bytes.as_mut_ptr(), bytes.len()) };
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

    /// The pages that may hold anything but zeroes, as disjoint ascending ranges of linear indexes: those that are in
    /// memory or in swap, and those that a store is mapped over, which hold what is there before any access.
    /// What was never written is not among them, and is zero without being read. O(touched pages +
    /// mappings of the process).
    ///
    /// # Errors
    ///
    /// When `/proc` does not report it (`PAGEMAP_SCAN` came with Linux 6.7).
    pub fn touched_pages(&self) -> io::Result<Vec<Range<u32>>> {
        let mut touched: Vec<Range<u32>> = Vec::new();
        let pagemap = Pagemap::open()?;
        pagemap
            .scan(self.span(), |first, page_count, _| touched.push(first..first + page_count))?;
        let start = self.base.as_ptr() as usize;
        let addresses = start..start + self.len_bytes;
        for mapping in ProcessMapping::all()?.iter().filter(|mapping| mapping.inode != 0) {
            let first = mapping.range.start.max(addresses.start);
            let end = mapping.range.end.min(addresses.end);
            if first < end {
                #[expect(clippy::cast_possible_truncation, reason = "a page of this memory")]
                let page = |addr: usize| ((addr - start) / PAGE_SIZE) as u32;
                touched.push(page(first)..page(end));
            }
        }
        touched.sort_unstable_by_key(|run| run.start);
        touched.dedup_by(|next, run| {
            let joins = next.start <= run.end;
            if joins {
                run.end = run.end.max(next.end);
            }
            joins
        });
        Ok(touched)
    }

    /// All of it.
    fn span(&self) -> Span<'_> {
        let page_count = self.regions.iter().map(|region| region.page_count).sum();
        // SAFETY: the regions lie one behind the other from the base on, and are unmapped with `self`.
        unsafe { Span::new(self.base.as_ptr() as usize, page_count) }
    }

    /// Bytes in the mapping.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// The address of `byte_count` bytes that lie inside.
    fn bytes_at(&self, offset_bytes: usize, byte_count: usize) -> *mut u8 {
        let end = offset_bytes.checked_add(byte_count);
        assert!(
            end.is_some_and(|end| end <= self.len_bytes()),
            "{byte_count} bytes at {offset_bytes} do not fit in {}",
            self.len_bytes()
        );
        // SAFETY: inside the mapping, as was just checked.
        unsafe { self.base.as_ptr().add(offset_bytes) }
    }
}

// SAFETY: the mapping is plain memory of the process, which any thread may use and unmap.
unsafe impl Send for AnonymousMemory {}
// SAFETY: `write` and `read` copy with an instruction that the compiler cannot see into, and `swap`
// is atomic, so that none of them races another in Rust's memory model; nothing else touches the
// bytes, and the other fields never change.
unsafe impl Sync for AnonymousMemory {}

// SAFETY: `new` made the mapping as the contract requires, `drop` alone removes it, and no reference
// into it is ever handed out.
unsafe impl GuestMemory for AnonymousMemory {
    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn is_written_by_kernel(&self) -> bool {
        self.is_written_by_kernel
    }
}

impl Drop for AnonymousMemory {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped (whatever was mapped over it since lies
        // inside); nothing can use it any more, as `self` is gone.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len_bytes()) };
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::memfd::Memfd;
    use super::*;

    // A data race by Rust's rules would go unseen here, but not by ThreadSanitizer:
    // `-Zsanitizer=thread` with this test reports it.
    #[test]
    fn bytes_may_be_read_and_replaced_while_they_are_written() {
        const ROUNDS: usize = 1000;
        let memory = AnonymousMemory::new(2).unwrap();
        // Across the pages' border, at an odd address and of an odd length.
        let (offset_bytes, len_bytes) = (PAGE_SIZE - 33, 77);
        let patterns = [0_u8, 0x11, 0x22];
        thread::scope(|scope| {
            for pattern in [0x11, 0x22] {
                let bytes = vec![pattern; len_bytes];
                let memory = &memory;
                scope.spawn(move || (0..ROUNDS).for_each(|_| memory.write(offset_bytes, &bytes)));
            }
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let before = memory.swap(PAGE_SIZE, 0x1111_1111_1111_1111);
                    assert!(before.to_le_bytes().iter().all(|byte| patterns.contains(byte)));
                }
            });
            let mut bytes = vec![0xff; len_bytes + 2];
            for _ in 0..ROUNDS {
                memory.read(offset_bytes - 1, &mut bytes);
                assert!(bytes.iter().all(|byte| patterns.contains(byte)), "{bytes:x?}");
                assert_eq!((bytes[0], bytes[len_bytes + 1]), (0, 0), "just that many are written");
            }
        });
    }

    #[test]
    fn what_nobody_has_written_is_not_touched() {
        let memory = AnonymousMemory::with_layout(&[(0, 1000), (1 << 32, 1 << 28)]).unwrap();
        assert_eq!(memory.touched_pages().unwrap(), []);
        for page in [1, 2, 3, 999, 1000, 1 << 28] {
            memory.write(page * PAGE_SIZE + 7, &[0]);
        }
        assert_eq!(memory.touched_pages().unwrap(), [1..4, 999..1001, 1 << 28..(1 << 28) + 1]);
    }

    #[test]
    fn a_page_of_a_store_is_touched_before_anybody_has_read_it() {
        let memory = AnonymousMemory::new(8).unwrap();
        for page in [1, 3] {
            memory.write(page * PAGE_SIZE, &[1]);
        }
        let store = Memfd::new(2).unwrap();
        memory.span().part(4, 2).map_file(store.raw(), 0).unwrap();
        assert_eq!(memory.touched_pages().unwrap(), [1..2, 3..6]);
    }

    #[test]
    fn nothing_is_read_or_written_beyond_the_end() {
        let memory = AnonymousMemory::new(1).unwrap();
        memory.write(PAGE_SIZE, &[]);
        memory.read(PAGE_SIZE, &mut []);
        let beyond = thread::scope(|scope| scope.spawn(|| memory.write(PAGE_SIZE, &[1])).join());
        assert!(beyond.is_err());
    }
}
