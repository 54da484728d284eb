//! Port I/O. IOPL is 3, so that CPL 3 may do it; each access is an exit to the VMM.

use core::arch::asm;

/// Writes a byte to a port.
pub(crate) fn write_u8(port: u16, value: u8) {
    // SAFETY: `out` touches no memory of the guest and no register but its operands; the ports of
    // this machine have no effect on memory.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags));
    }
}

/// Writes 4 bytes to a port.
pub(crate) fn write_u32(port: u16, value: u32) {
    // SAFETY: as in `write_u8`.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags));
    }
}

/// Reads 4 bytes from a port.
pub(crate) fn read_u32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `write_u8`; `in` writes all of `eax`.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags));
    }
    value
}
