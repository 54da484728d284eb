//! Buffers of a request, and what is moved between them and a disk.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

use super::storage::Storage;
use crate::sys::vectored::{MAX_BUFFERS, without_bitmap};

/// As much as is copied at once where the kernel cannot access guest memory by itself.
const COPIED_BYTES: usize = 4096;

/// As much as is moved by one call: a request may have up to 4 GiB.
pub(super) const CALL_BYTES: usize = 4 << 20;

/// Buffers in guest memory, one after the other, which get shorter from the front as they are used.
#[derive(Debug, Clone)]
pub(super) struct Buffers<'memory, B>(VecDeque<VolatileSlice<'memory, B>>);

impl<'memory, B: BitmapSlice> Buffers<'memory, B> {
    /// None yet.
    pub(super) fn none() -> Self {
        Self(VecDeque::new())
    }

    /// Adds one behind the others.
    pub(super) fn push(&mut self, slice: VolatileSlice<'memory, B>) {
        if !slice.is_empty() {
            self.0.push_back(slice);
        }
    }

    /// Bytes of all. O(buffers).
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(VolatileSlice::len).sum()
    }

    /// Takes the last byte off.
    pub(super) fn pop_byte(&mut self) -> Option<VolatileSlice<'memory, B>> {
        let last = self.0.pop_back()?;
        let (rest, byte) = last.split_at(last.len() - 1).ok()?;
        self.push(rest);
        Some(byte)
    }

    /// Drops `count` bytes from the front, or as many as there are.
    fn advance(&mut self, mut count: usize) {
        while let Some(slice) = self.0.pop_front() {
            if let Ok(rest) = slice.offset(count)
                && !rest.is_empty()
            {
                self.0.push_front(rest);
                return;
            }
            count = count.saturating_sub(slice.len());
        }
    }

    /// As much of the first ones as one call takes, as storage takes them.
    fn front(&self) -> Vec<VolatileSlice<'memory>> {
        let mut left = CALL_BYTES;
        let part = |slice: &VolatileSlice<'memory, B>| {
            let slice =
                slice.subslice(0, slice.len().min(left)).ok().filter(|part| !part.is_empty());
            left -= slice.as_ref().map_or(0, VolatileSlice::len);
            slice
        };
        self.0.iter().take(MAX_BUFFERS).map_while(part).map(|part| without_bitmap(&part)).collect()
    }

    /// Marks the first `count` bytes as written, or as many as there are.
    fn mark(&self, mut count: usize) {
        for slice in &self.0 {
            let len = slice.len().min(count);
            slice.bitmap().mark_dirty(0, len);
            count -= len;
            if count == 0 {
                return;
            }
        }
    }

    /// Takes bytes from the front, as many as `bytes` has; returns whether there were so many.
    pub(super) fn take(&mut self, bytes: &mut [u8]) -> bool {
        let mut at = 0;
        for slice in &self.0 {
            at += slice.copy_to(&mut bytes[at..]);
        }
        self.advance(at);
        at == bytes.len()
    }

    /// Puts bytes at the front, as many as fit; returns how many.
    pub(super) fn put(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        for slice in &self.0 {
            let len = slice.len().min(bytes.len() - at);
            slice.copy_from(&bytes[at..at + len]);
            at += len;
        }
        self.advance(at);
        at
    }

    /// Fills them with what `storage` has from the byte `offset` on, while that `is_wanted`; what is left are those
    /// that were not filled.
    ///
    /// # Errors
    ///
    /// The medium's, or that it ends, or is wanted no more. Some bytes of what is left may have been written, and are
    /// marked.
    pub(super) fn fill_from(
        &mut self,
        storage: &dyn Storage,
        mut offset: u64,
        is_wanted: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        while !self.0.is_empty() {
            check(is_wanted)?;
            let result = match storage.read_at(&self.front(), offset) {
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                    // What was written before the fault is not known.
                    self.mark_front();
                    self.copy_from_storage(storage, offset)
                }
                result => result,
            };
            match result {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.mark(count);
                    self.advance(count);
                    offset += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.mark_front();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Writes them to `storage` from the byte `offset` on, while that `is_wanted`; what is left are those that were not
    /// written.
    ///
    /// # Errors
    ///
    /// The medium's, or that it is wanted no more. Some bytes of what is left may have been written.
    pub(super) fn write_to(
        &mut self,
        storage: &dyn Storage,
        mut offset: u64,
        is_wanted: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        while !self.0.is_empty() {
            check(is_wanted)?;
            let result = match storage.write_at(&self.front(), offset) {
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                    self.copy_to_storage(storage, offset)
                }
                result => result,
            };
            match result {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.advance(count);
                    offset += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Marks all that one call may have written.
    fn mark_front(&self) {
        self.mark(self.0.iter().take(MAX_BUFFERS).map(VolatileSlice::len).sum());
    }

    /// Fills a part of the first buffer by a copy. Where folding protects a page, the kernel may not wait for it on our
    /// behalf if userfaults of the kernel are not allowed; we may.
    fn copy_from_storage(&self, storage: &dyn Storage, offset: u64) -> io::Result<usize> {
        let mut bytes = [0; COPIED_BYTES];
        let Some(slice) = self.0.front() else { return Ok(0) };
        let bytes = &mut bytes[..slice.len().min(COPIED_BYTES)];
        let count = storage.read_at(&[VolatileSlice::from(&mut *bytes)], offset)?;
        slice.copy_from(&bytes[..count]);
        Ok(count)
    }

    /// Writes a part of the first buffer by a copy.
    fn copy_to_storage(&self, storage: &dyn Storage, offset: u64) -> io::Result<usize> {
        let mut bytes = [0; COPIED_BYTES];
        let Some(slice) = self.0.front() else { return Ok(0) };
        let count = slice.copy_to(&mut bytes[..]);
        storage.write_at(&[VolatileSlice::from(&mut bytes[..count])], offset)
    }
}

fn check(is_wanted: &dyn Fn() -> bool) -> io::Result<()> {
    if is_wanted() { Ok(()) } else { Err(io::Error::other("it is wanted no more")) }
}
