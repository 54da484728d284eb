//! The buses: which device answers at which port or address.
//!
//! | file | what it is |
//! |---|---|
//! | `ranges` | disjoint ranges, each with what is at it |
//! | `dispatch` | one access, to the device at its range or to nothing |
//! | `pio`, `mmio` | the port bus, and the bus of guest-physical addresses without memory |
//!
//! Lock order: each device has a lock of its own, so that vCPUs meet only at the same device. A bus
//! takes no other while it holds one.

mod dispatch;
mod mmio;
mod pio;
mod ranges;

use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use dispatch::Unclaimed;
pub use mmio::MmioBus;
pub use pio::PortBus;
pub use ranges::{InsertError, Occupied};

/// What an access has the vCPU do that made it, beyond going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: the guest goes on with its next instruction.
    Continue,
    /// The vCPU sleeps for this long.
    Sleep(Duration),
    /// The guest has ended with this code; 0 is success.
    Exit(u32),
    /// The guest has turned its machine off.
    PowerOff,
    /// The guest has reset its machine.
    Reset,
}

/// A device behind ports or addresses.
///
/// The guest chooses the offset, which lies in the device's range, and the length: 1 to 8 bytes from
/// KVM, and an access may reach past the end of the range. Neither may make a device panic or block, but for a reset,
/// which waits for what the device has begun.
pub trait BusDevice: Send {
    /// Fills `data` with what is read at `offset` from the beginning of the device's range. `data`
    /// is all ones before, as on a bus with pull-ups.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Takes `data`, written at `offset` from the beginning of the device's range.
    fn write(&mut self, offset: u64, data: &[u8]) -> Effect;
}

/// A device on a bus, which its owner can still reach: to give it input, or to save its state.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

/// The buses of a VM, which all of its vCPUs share.
#[derive(Debug, Default)]
pub struct Buses {
    /// Devices behind I/O ports.
    pub ports: PortBus,
    /// Devices behind guest-physical addresses.
    pub mmio: MmioBus,
}

#[cfg(test)]
mod tests;
