//! The functions of a C library that compiled code may call.
//!
//! They are single string instructions, so that the compiler cannot turn their bodies into calls of
//! themselves. The direction flag is clear, as the calling convention has it.

use core::arch::asm;

/// # Safety
/// As C's `memcpy`.
// SAFETY: the C name is free, since the image links no C library, and means what it does in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: reads `len` bytes at `from` and writes them to `to`: the caller's promise.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    }
    to
}

/// # Safety
/// As C's `memmove`.
// SAFETY: as for `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= len {
        // SAFETY: the caller's promise; no byte is written before it is read, since `to` is not
        // inside the source.
        return unsafe { memcpy(to, from, len) };
    }
    let last = len.wrapping_sub(1);
    // SAFETY: copies the same bytes from the last to the first, and clears the direction flag again.
    unsafe {
        asm!(
            "std", "rep movsb", "cld",
            inout("rcx") len => _,
            inout("rdi") to.wrapping_add(last) => _,
            inout("rsi") from.wrapping_add(last) => _,
            options(nostack)
        );
    }
    to
}

/// # Safety
/// As C's `memset`.
// SAFETY: as for `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    let [byte, ..] = value.to_le_bytes();
    // SAFETY: writes `len` bytes at `to`: the caller's promise.
    unsafe {
        asm!(
            "rep stosb",
            inout("rcx") len => _, inout("rdi") to => _, in("al") byte,
            options(nostack, preserves_flags)
        );
    }
    to
}

/// # Safety
/// As C's `memcmp`.
// SAFETY: as for `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    let (low, high): (u8, u8);
    // SAFETY: reads at most `len` bytes at each pointer: the caller's promise. With no bytes to
    // compare, `repe` changes no flag, and `cmp` has set them to equal before.
    unsafe {
        asm!(
            "cmp rax, rax",
            "repe cmpsb",
            "setb {low}",
            "seta {high}",
            inout("rcx") len => _, inout("rsi") a => _, inout("rdi") b => _,
            low = out(reg_byte) low, high = out(reg_byte) high,
            options(nostack, readonly)
        );
    }
    i32::from(high) - i32::from(low)
}

/// # Safety
/// As the BSD `bcmp`.
// SAFETY: as for `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's promise is the same.
    unsafe { memcmp(a, b, len) }
}
