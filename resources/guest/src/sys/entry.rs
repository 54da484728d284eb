//! Where the image starts, and where it ends when something is wrong.

use core::fmt::Write;
use core::panic::PanicInfo;

use pagefold_guest::params::PARAMS_BYTES;
use pagefold_guest::ports::{EXIT_PANIC, EXIT_PORT};

use super::{read_tsc, write_u32};
use crate::guest;

/// The ELF entry point.
///
/// # Safety
/// Must be entered once, by the VMM, as `layout` describes: `params` is the address of the parameter
/// page, `rsp` is [`pagefold_guest::layout::ENTRY_RSP`] on a stack nothing else uses.
// SAFETY: no other symbol of the image has this name: the image links no C runtime.
#[unsafe(no_mangle)]
unsafe extern "C" fn _start(params: *const [u8; PARAMS_BYTES]) -> ! {
    // SAFETY: the caller passes the address of the parameter page, which is mapped, has alignment 1,
    // and is written by nobody once the guest runs.
    let page = unsafe { &*params };
    exit(guest::main(page))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut line = guest::PanicLine::begin();
    // Writing to the serial port cannot fail.
    let _ = match info.location() {
        Some(at) => write!(line, "{}:{}: {}", at.file(), at.line(), info.message()),
        None => write!(line, "{}", info.message()),
    };
    drop(line);
    exit(EXIT_PANIC)
}

/// Stops the VM; if the VMM runs the guest on all the same, asks again.
fn exit(code: u32) -> ! {
    loop {
        write_u32(EXIT_PORT, code);
        // Keeps the loop from being anything but a loop of port writes.
        core::hint::black_box(read_tsc());
    }
}
