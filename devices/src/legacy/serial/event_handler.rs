//! What comes from the host's side: bytes that somebody types.

use super::device::{SerialConsole, SerialOutput};
use crate::Interrupt;

/// Why bytes were not received; none of them was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The receiver is full until the guest reads from it.
    #[error("the receiver of the serial port is full")]
    Full,
}

impl<O: SerialOutput, I: Interrupt> SerialConsole<O, I> {
    /// Puts as many of `bytes` into the receiver, which holds 64, as there is room for, and raises
    /// the interrupt if the guest has enabled it; returns how many those were. The rest is the caller's to
    /// keep. In loopback mode nothing comes in from outside, and 0 is returned.
    ///
    /// # Errors
    ///
    /// When there is no room for even one of them.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<usize, ReceiveError> {
        // The line does not fail, and the output has no part in it.
        let count = self.uart.enqueue_raw_bytes(bytes).map_err(|_| ReceiveError::Full)?;
        self.uart.events().count_received(count);
        Ok(count)
    }
}
