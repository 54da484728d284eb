//! The MMIO bus: which device answers where a guest-physical address has no memory.

use std::fmt;
use std::ops::RangeInclusive;

use super::dispatch::{Dispatch, Unclaimed};
use super::ranges::InsertError;
use super::{Effect, SharedDevice};

/// The devices by their guest-physical addresses. Lookup is O(log devices).
#[derive(Default)]
pub struct MmioBus {
    dispatch: Dispatch,
}

impl MmioBus {
    /// A bus with nothing on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `device`, called `name`, at the guest-physical addresses of `range`.
    ///
    /// # Errors
    ///
    /// When the range is empty or overlaps another device's; the bus is unchanged.
    pub fn insert(
        &mut self,
        name: &str,
        range: RangeInclusive<u64>,
        device: SharedDevice,
    ) -> Result<(), InsertError> {
        self.dispatch.insert(name, range, device)
    }

    /// One read of `data.len()` bytes at `address`; all ones where no device answers, as on a real
    /// bus with its pull-ups.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        self.dispatch.read(address, data);
    }

    /// One write of `data.len()` bytes at `address`; lost where no device answers.
    pub fn write(&self, address: u64, data: &[u8]) -> Effect {
        self.dispatch.write(address, data)
    }

    /// How many accesses no device has answered.
    pub fn unclaimed(&self) -> Unclaimed {
        self.dispatch.unclaimed()
    }
}

impl fmt::Debug for MmioBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MmioBus")
            .field("devices", self.dispatch.devices())
            .field("unclaimed", &self.unclaimed())
            .finish()
    }
}
