//! The serial port.

use core::fmt::{self, Write};

use pagefold_guest::ports::SERIAL_PORT;
use pagefold_guest::report::{MAX_LINE_BYTES, Report};

use crate::sys::write_u8;

/// Prints one report line.
pub(crate) fn print(report: &Report<'_>) {
    // Writing to the serial port cannot fail.
    let _ = writeln!(Serial, "{report}");
}

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| write_u8(SERIAL_PORT, byte));
        Ok(())
    }
}

/// A `PANIC` line whose message may be anything: what is not printable becomes `?`, what is too
/// long is cut, so that the host parses it.
pub(crate) struct PanicLine {
    left: usize,
}

const PANIC: &str = "PANIC ";

impl PanicLine {
    /// Prints the line's first word.
    pub(crate) fn begin() -> Self {
        let _ = Serial.write_str(PANIC);
        Self { left: MAX_LINE_BYTES - PANIC.len() }
    }
}

/// Ends the line.
impl Drop for PanicLine {
    fn drop(&mut self) {
        let _ = Serial.write_str("\n");
    }
}

impl Write for PanicLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes().take(self.left) {
            let is_printable = matches!(byte, b' '..=b'~');
            write_u8(SERIAL_PORT, if is_printable { byte } else { b'?' });
            self.left -= 1;
        }
        Ok(())
    }
}
