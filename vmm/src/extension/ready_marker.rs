//! The line by which a stock guest reports that it is ready.

use super::GuestExtension;

/// The line, which something in the guest prints to its serial port.
const READY_MARKER: &[u8] = b"READY";

/// Finds the line by which a guest reports that it is ready, and takes no other.
#[derive(Debug)]
pub(crate) struct ReadyMarker;

impl GuestExtension for ReadyMarker {
    fn take_line(&self, line: &[u8]) -> bool {
        // A terminal's lines end with two characters.
        line.strip_suffix(b"\r").unwrap_or(line) == READY_MARKER
    }
}
