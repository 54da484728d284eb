//! Reads and writes of a file, straight to and from guest memory.
//!
//! Source: `preadv(2)`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// How many buffers one call takes: the kernel takes as many more as anybody has, but not all at once from the stack.
pub(crate) const MAX_BUFFERS: usize = 64;

/// The same memory without its bitmap, so that buffers of any memory have one type. Whoever has it written marks it
/// in the bitmap afterwards.
pub(crate) fn without_bitmap<'memory, B: BitmapSlice>(
    slice: &VolatileSlice<'memory, B>,
) -> VolatileSlice<'memory> {
    let address = slice.ptr_guard_mut().as_ptr();
    // SAFETY: `VolatileSlice::new` requires memory that is valid for `'memory` and accessed volatilely only: the
    // address and the length are those of a slice that was made under the same condition.
    unsafe { VolatileSlice::new(address, slice.len()) }
}

/// Reads from `offset` of a file on into the first [`MAX_BUFFERS`] buffers, in one call; returns how many bytes, which
/// may be fewer than there is room for, and 0 at the file's end.
///
/// # Errors
///
/// The kernel's; some bytes may have been written to the buffers.
pub(crate) fn read_at(
    file: &File,
    buffers: &[VolatileSlice<'_>],
    offset: u64,
) -> io::Result<usize> {
    let (vectors, count) = vectors(buffers);
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: `preadv` requires `count` vectors of writable memory: they are those of slices of guest memory, which
    // live until after the call, and which nobody has a reference to.
    let read = unsafe { libc::preadv(file.as_raw_fd(), vectors.as_ptr(), count, offset) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Writes the first [`MAX_BUFFERS`] buffers to a file from `offset` on, in one call; returns how many bytes, which may
/// be fewer than there are.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn write_at(
    file: &File,
    buffers: &[VolatileSlice<'_>],
    offset: u64,
) -> io::Result<usize> {
    let (vectors, count) = vectors(buffers);
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: `pwritev` requires `count` vectors of readable memory: they are those of slices of guest memory, which
    // live until after the call.
    let written = unsafe { libc::pwritev(file.as_raw_fd(), vectors.as_ptr(), count, offset) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// The first buffers as the kernel takes them, and how many they are.
fn vectors(buffers: &[VolatileSlice<'_>]) -> ([libc::iovec; MAX_BUFFERS], libc::c_int) {
    let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut vectors = [none; MAX_BUFFERS];
    let mut count = 0;
    for (vector, buffer) in vectors.iter_mut().zip(buffers) {
        vector.iov_base = buffer.ptr_guard_mut().as_ptr().cast();
        vector.iov_len = buffer.len();
        count += 1;
    }
    (vectors, count)
}
