//! Whether the machine swaps.

use std::mem;

/// Whether memory can have been written out to swap; yes, if the kernel does not report it.
pub(crate) fn has_swap() -> bool {
    // SAFETY: a structure of integers, for which zeroes are values.
    let mut info: libc::sysinfo = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes one such structure, which is this one.
    let result = unsafe { libc::sysinfo(&raw mut info) };
    result != 0 || info.totalswap > 0
}
