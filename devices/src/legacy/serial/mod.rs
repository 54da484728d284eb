//! The serial port: a 16550A whose transmitter is a sink in the VMM.
//!
//! Its folder has the shape of every device's:
//!
//! | file | what it is |
//! |---|---|
//! | `device` | the registers, as the guest sees them |
//! | `event_handler` | what comes from the host's side |
//! | `metrics` | what it has done |
//! | `state` | what a snapshot keeps of it |

mod device;
mod event_handler;
mod metrics;
mod state;

pub use device::{SERIAL_PORTS, SerialConsole, SerialOutput};
pub use event_handler::ReceiveError;
pub use metrics::{SerialCounts, SerialMetrics};
pub use state::{RestoreSerialError, SerialState};

#[cfg(test)]
mod tests;
