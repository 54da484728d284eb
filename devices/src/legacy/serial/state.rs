//! What a snapshot keeps of a serial port.

use serde::{Deserialize, Serialize};

/// Bytes that the receiver holds.
const FIFO_BYTES: usize = 64;

/// The registers of a 16550A, and what its guest has not read yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialState {
    /// DLL.
    pub baud_divisor_low: u8,
    /// DLM.
    pub baud_divisor_high: u8,
    /// IER.
    pub interrupt_enable: u8,
    /// IIR.
    pub interrupt_identification: u8,
    /// LCR.
    pub line_control: u8,
    /// LSR.
    pub line_status: u8,
    /// MCR.
    pub modem_control: u8,
    /// MSR.
    pub modem_status: u8,
    /// SCR.
    pub scratch: u8,
    /// What is in the receiver, the oldest byte first; at most 64.
    pub received: Vec<u8>,
}

/// Why a serial port could not be restored; there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreSerialError {
    /// More bytes are in its receiver than it holds.
    #[error("a serial port cannot be restored with more than {FIFO_BYTES} received bytes")]
    TooMuchInput,
}

impl SerialState {
    /// The state as vm-superio has it. What is read from a snapshot is not trusted.
    pub(super) fn checked(self) -> Result<vm_superio::SerialState, RestoreSerialError> {
        if self.received.len() > FIFO_BYTES {
            return Err(RestoreSerialError::TooMuchInput);
        }
        Ok(vm_superio::SerialState {
            baud_divisor_low: self.baud_divisor_low,
            baud_divisor_high: self.baud_divisor_high,
            interrupt_enable: self.interrupt_enable,
            interrupt_identification: self.interrupt_identification,
            line_control: self.line_control,
            line_status: self.line_status,
            modem_control: self.modem_control,
            modem_status: self.modem_status,
            scratch: self.scratch,
            in_buffer: self.received,
        })
    }
}

impl From<vm_superio::SerialState> for SerialState {
    fn from(state: vm_superio::SerialState) -> Self {
        Self {
            baud_divisor_low: state.baud_divisor_low,
            baud_divisor_high: state.baud_divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            received: state.in_buffer,
        }
    }
}
