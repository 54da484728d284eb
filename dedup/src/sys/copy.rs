//! Reading and writing memory that somebody else uses.

use std::arch::asm;

use super::span::Span;
use crate::PAGE_SIZE;

/// Copies one page from `source`, which other threads, guests and devices may be writing.
///
/// The copy may mix old and new bytes. It is done by an instruction that the compiler cannot see
/// into, so that the race is the hardware's and not one of Rust's memory model.
///
/// # Safety
///
/// `source` must be the address of a readable page.
pub(super) unsafe fn racy_copy_page(source: *const u8, destination: &mut [u8; PAGE_SIZE]) {
    // SAFETY: reads PAGE_SIZE bytes that the caller vouches for and writes exactly the
    // destination's; the direction flag is clear by the ABI, and the three registers that change
    // are declared.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") PAGE_SIZE => _,
            inout("rsi") source => _,
            inout("rdi") destination.as_mut_ptr() => _,
            options(nostack, preserves_flags),
        );
    }
}

impl Span<'_> {
    /// Fills the first page, as a store by the guest would.
    pub(crate) fn write_page(self, source: &[u8; PAGE_SIZE]) {
        let destination = self.part(0, 1).as_ptr();
        // SAFETY: writes PAGE_SIZE bytes to a page of the `GuestMemory` that the span's space
        // holds, which is mapped writable and to which no reference exists, from a slice of that
        // length; the direction flag is clear by the ABI, and the registers that change are declared.
        unsafe {
            asm!(
                "rep movsb",
                inout("rcx") PAGE_SIZE => _,
                inout("rsi") source.as_ptr() => _,
                inout("rdi") destination => _,
                options(nostack, preserves_flags),
            );
        }
    }
}
