//! Reading and writing memory that somebody else uses.

use std::arch::asm;

use crate::PAGE_SIZE;

/// Copies `byte_count` bytes, either end of which other threads, guests and devices may be using.
///
/// The copy may mix old and new bytes. It is done by an instruction that the compiler cannot see
/// into, so that the race is the hardware's and not one of Rust's memory model.
///
/// # Safety
///
/// There must be that many bytes to read at `source` and to write at `destination`, and no Rust
/// reference to what others use of them.
pub(super) unsafe fn racy_copy(source: *const u8, destination: *mut u8, byte_count: usize) {
    // SAFETY: reads and writes just the bytes that the caller vouches for; the direction flag is
    // clear by the ABI, and the three registers that change are declared.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") byte_count => _,
            inout("rsi") source => _,
            inout("rdi") destination => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Copies one page from `source`, which other threads, guests and devices may be writing, as
/// [`racy_copy`] does.
///
/// # Safety
///
/// `source` must be the address of a readable page to which no Rust reference exists.
pub(super) unsafe fn racy_copy_page(source: *const u8, destination: &mut [u8; PAGE_SIZE]) {
    // SAFETY: the caller vouches for the source; the destination is as long.
    unsafe { racy_copy(source, destination.as_mut_ptr(), PAGE_SIZE) }
}
