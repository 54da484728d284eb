//! The port-I/O bus: which device answers at which of the 65,536 ports.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What an access asks of the vCPU that made it, beyond going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: the guest goes on with its next instruction.
    Continue,
    /// The guest does not want to run for this long.
    Sleep(Duration),
    /// The guest has ended with this code; 0 is success.
    Exit(u32),
}

/// A device behind I/O ports.
pub trait PortDevice: Send {
    /// Fills `data`, of 1, 2 or 4 bytes, with what the port at `offset` from the device's first
    /// port reads as.
    fn read(&mut self, offset: u16, data: &mut [u8]);

    /// Takes `data`, of 1, 2 or 4 bytes, written to the port at `offset` from the device's first
    /// port.
    fn write(&mut self, offset: u16, data: &[u8]) -> Effect;
}

/// Why a device could not be put on the bus; the bus is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// The range holds no port.
    #[error("the port range {0:#x}..={1:#x} is empty", .range.start(), .range.end())]
    Empty {
        /// The range asked for.
        range: RangeInclusive<u16>,
    },
    /// Another device has some of the ports.
    #[error(
        "ports {:#x}..={:#x} overlap {:#x}..={:#x}, which another device answers",
        .range.start(), .range.end(), .taken.start(), .taken.end()
    )]
    Overlap {
        /// The range asked for.
        range: RangeInclusive<u16>,
        /// The range of the device that is there.
        taken: RangeInclusive<u16>,
    },
}

struct Attached {
    last_port: u16,
    /// Each device has its own lock, so that vCPUs meet only at the same device. Nothing else is
    /// ever locked while one is held.
    device: Mutex<Box<dyn PortDevice>>,
}

/// The devices by their ports. Lookup is O(log devices).
#[derive(Default)]
pub struct PortBus {
    /// Keyed by first port; the ranges are disjoint.
    devices: BTreeMap<u16, Attached>,
}

impl PortBus {
    /// A bus with nothing on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `device` at the ports of `range`.
    ///
    /// # Errors
    ///
    /// When the range is empty or overlaps a device's; the bus is unchanged.
    pub fn insert(
        &mut self,
        range: RangeInclusive<u16>,
        device: Box<dyn PortDevice>,
    ) -> Result<(), InsertError> {
        if range.is_empty() {
            return Err(InsertError::Empty { range });
        }
        // The ranges are disjoint, so of those that begin at or below our end only the last can
        // reach into ours.
        if let Some((&first, below)) = self.devices.range(..=*range.end()).next_back()
            && below.last_port >= *range.start()
        {
            return Err(InsertError::Overlap { range, taken: first..=below.last_port });
        }
        self.devices.insert(
            *range.start(),
            Attached { last_port: *range.end(), device: Mutex::new(device) },
        );
        Ok(())
    }

    /// One read of `data.len()` bytes at `port`; all ones where no device answers, as on a real
    /// bus with its pull-ups.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((offset, device)) = self.find(port) {
            device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
        }
    }

    /// One write of `data.len()` bytes at `port`; lost where no device answers.
    pub fn write(&self, port: u16, data: &[u8]) -> Effect {
        self.find(port).map_or(Effect::Continue, |(offset, device)| {
            device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data)
        })
    }

    fn find(&self, port: u16) -> Option<(u16, &Mutex<Box<dyn PortDevice>>)> {
        let (first, attached) = self.devices.range(..=port).next_back()?;
        (port <= attached.last_port).then_some((port - first, &attached.device))
    }
}

impl fmt::Debug for PortBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.devices.iter().map(|(first, attached)| *first..=attached.last_port))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads as its tag and sleeps for the offset written to.
    struct Tagged(u8);

    impl PortDevice for Tagged {
        fn read(&mut self, _offset: u16, data: &mut [u8]) {
            data.fill(self.0);
        }

        fn write(&mut self, offset: u16, _data: &[u8]) -> Effect {
            Effect::Sleep(Duration::from_secs(offset.into()))
        }
    }

    fn read(bus: &PortBus, port: u16) -> u8 {
        let mut data = [0];
        bus.read(port, &mut data);
        data[0]
    }

    #[test]
    fn each_port_of_a_range_reaches_its_device_and_no_other_does() {
        let mut bus = PortBus::new();
        bus.insert(0x10..=0x17, Box::new(Tagged(1))).unwrap();
        bus.insert(0x18..=0x18, Box::new(Tagged(2))).unwrap();
        bus.insert(0xffff..=0xffff, Box::new(Tagged(3))).unwrap();
        assert_eq!(
            [0x0f, 0x10, 0x17, 0x18, 0x19, 0xffff].map(|port| read(&bus, port)),
            [0xff, 1, 1, 2, 0xff, 3]
        );
        assert_eq!(bus.write(0x12, &[0]), Effect::Sleep(Duration::from_secs(2)));
        assert_eq!(bus.write(0x20, &[0]), Effect::Continue);
    }

    #[test]
    fn unclaimed_reads_are_all_ones_at_every_width() {
        let bus = PortBus::new();
        let mut data = [0; 4];
        bus.read(0x80, &mut data);
        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn an_overlap_is_refused_wherever_it_lies() {
        let mut bus = PortBus::new();
        bus.insert(0x10..=0x17, Box::new(Tagged(1))).unwrap();
        for range in [0x10..=0x17, 0x0..=0x10, 0x17..=0x20, 0x12..=0x13, 0x0..=0xffff] {
            let error = bus.insert(range.clone(), Box::new(Tagged(2))).unwrap_err();
            assert_eq!(error, InsertError::Overlap { range, taken: 0x10..=0x17 });
        }
        assert_eq!(
            bus.insert(0x17..=0x20, Box::new(Tagged(2))).unwrap_err().to_string(),
            "ports 0x17..=0x20 overlap 0x10..=0x17, which another device answers"
        );
        bus.insert(0x0..=0xf, Box::new(Tagged(2))).unwrap();
        bus.insert(0x18..=0x20, Box::new(Tagged(2))).unwrap();
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "the empty range is the point")]
    fn an_empty_range_is_refused() {
        let error = PortBus::new().insert(5..=4, Box::new(Tagged(1))).unwrap_err();
        assert_eq!(error, InsertError::Empty { range: 5..=4 });
        assert_eq!(error.to_string(), "the port range 0x5..=0x4 is empty");
    }
}
