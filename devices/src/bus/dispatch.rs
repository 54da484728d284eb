//! One access, to the device at its range or to nothing.

use std::ops::RangeInclusive;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::ranges::{InsertError, Ranges};
use super::{Effect, SharedDevice};

/// How many accesses no device has answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unclaimed {
    /// Reads, which gave all ones.
    pub reads: u64,
    /// Writes, which were lost.
    pub writes: u64,
}

/// The devices of a bus by their numbers, whatever these count.
#[derive(Default)]
pub(super) struct Dispatch {
    devices: Ranges<SharedDevice>,
    unclaimed_reads: AtomicU64,
    unclaimed_writes: AtomicU64,
}

impl Dispatch {
    pub(super) fn insert(
        &mut self,
        name: &str,
        range: RangeInclusive<u64>,
        device: SharedDevice,
    ) -> Result<(), InsertError> {
        self.devices.insert(name, range, device)
    }

    pub(super) fn read(&self, at: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((offset, device)) = self.devices.find(at) {
            device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
        } else {
            self.unclaimed_reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn write(&self, at: u64, data: &[u8]) -> Effect {
        if let Some((offset, device)) = self.devices.find(at) {
            device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data)
        } else {
            self.unclaimed_writes.fetch_add(1, Ordering::Relaxed);
            Effect::Continue
        }
    }

    pub(super) fn unclaimed(&self) -> Unclaimed {
        Unclaimed {
            reads: self.unclaimed_reads.load(Ordering::Relaxed),
            writes: self.unclaimed_writes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn devices(&self) -> &Ranges<SharedDevice> {
        &self.devices
    }
}
