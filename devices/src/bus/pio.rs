//! The port-I/O bus: which device answers at which of the 65,536 ports.

use std::fmt;
use std::ops::RangeInclusive;

use super::dispatch::{Dispatch, Unclaimed};
use super::ranges::InsertError;
use super::{Effect, SharedDevice};

/// The devices by their ports. Lookup is O(log devices).
#[derive(Default)]
pub struct PortBus {
    dispatch: Dispatch,
}

impl PortBus {
    /// A bus with nothing on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `device`, called `name`, at the ports of `range`.
    ///
    /// # Errors
    ///
    /// When the range is empty or overlaps another device's; the bus is unchanged.
    pub fn insert(
        &mut self,
        name: &str,
        range: RangeInclusive<u16>,
        device: SharedDevice,
    ) -> Result<(), InsertError> {
        let (first, last) = range.into_inner();
        self.dispatch.insert(name, first.into()..=last.into(), device)
    }

    /// One read of `data.len()` bytes at `port`; all ones where no device answers, as on a real
    /// bus with its pull-ups.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        self.dispatch.read(port.into(), data);
    }

    /// One write of `data.len()` bytes at `port`; lost where no device answers.
    pub fn write(&self, port: u16, data: &[u8]) -> Effect {
        self.dispatch.write(port.into(), data)
    }

    /// How many accesses no device has answered.
    pub fn unclaimed(&self) -> Unclaimed {
        self.dispatch.unclaimed()
    }
}

impl fmt::Debug for PortBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortBus")
            .field("devices", self.dispatch.devices())
            .field("unclaimed", &self.unclaimed())
            .finish()
    }
}
