//! The registers, as the guest sees them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::{BusDevice, Effect};

/// Where the registers are, as offsets from the block's first port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParavirtPorts {
    /// Written: sleep for that many microseconds.
    pub sleep: u16,
    /// Read: the VMM's command to the guest, a [`ControlWord`].
    pub control: u16,
    /// Written: the guest has ended with that code.
    pub exit: u16,
}

/// The VMM's command to the guest, shared between the block and whatever sets it. The numbers
/// and their meaning are the guest's.
#[derive(Debug, Clone, Default)]
pub struct ControlWord(Arc<AtomicU32>);

impl ControlWord {
    /// A word that reads as `value`.
    pub fn new(value: u32) -> Self {
        Self(Arc::new(AtomicU32::new(value)))
    }

    /// What the guest reads from now on.
    pub fn set(&self, value: u32) {
        self.0.store(value, Ordering::Release);
    }

    /// What the guest reads now.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}

/// The block as a device. Registers are 32 bits wide, little-endian; a narrower access reads or
/// writes the low bytes.
///
/// A guest looks at CONTROL, finds nothing to do, and goes to sleep. What is set between the two
/// would be overslept, so a sleep ends at once while CONTROL holds what the guest has not yet read;
/// whoever sets it during a sleep wakes the vCPU.
#[derive(Debug)]
pub struct Paravirt {
    ports: ParavirtPorts,
    control: ControlWord,
    /// What the guest read last, or what was there at the beginning.
    control_read: u32,
}

impl Paravirt {
    /// A block with its registers at `ports`, whose CONTROL register reads as `control`.
    pub fn new(ports: ParavirtPorts, control: ControlWord) -> Self {
        let control_read = control.get();
        Self { ports, control, control_read }
    }
}

impl BusDevice for Paravirt {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset == u64::from(self.ports.control) {
            self.control_read = self.control.get();
            let value = self.control_read.to_le_bytes();
            data.iter_mut().zip(value).for_each(|(byte, value)| *byte = value);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let mut value = [0; 4];
        value.iter_mut().zip(data).for_each(|(value, byte)| *value = *byte);
        let value = u32::from_le_bytes(value);
        if offset == u64::from(self.ports.sleep) {
            if self.control.get() != self.control_read {
                return Effect::Continue;
            }
            Effect::Sleep(Duration::from_micros(value.into()))
        } else if offset == u64::from(self.ports.exit) {
            Effect::Exit(value)
        } else {
            Effect::Continue
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PORTS: ParavirtPorts = ParavirtPorts { sleep: 0, control: 4, exit: 8 };

    #[test]
    fn the_control_register_reads_what_was_set_last() {
        let control = ControlWord::new(1);
        let mut block = Paravirt::new(PORTS, control.clone());
        control.set(0x0403_0201);
        let mut data = [0xff; 4];
        block.read(4, &mut data);
        assert_eq!(data, [1, 2, 3, 4]);
        let mut low = [0xff; 1];
        block.read(4, &mut low);
        assert_eq!(low, [1]);
    }

    #[test]
    fn sleeping_and_ending_are_effects() {
        let mut block = Paravirt::new(PORTS, ControlWord::default());
        assert_eq!(
            block.write(0, &1_500_u32.to_le_bytes()),
            Effect::Sleep(Duration::from_micros(1_500))
        );
        assert_eq!(block.write(8, &7_u32.to_le_bytes()), Effect::Exit(7));
        assert_eq!(block.write(8, &[3]), Effect::Exit(3));
    }

    #[test]
    fn a_guest_does_not_oversleep_what_it_has_not_read() {
        let control = ControlWord::default();
        let mut block = Paravirt::new(PORTS, control.clone());
        let microsecond = 1_u32.to_le_bytes();
        control.set(2);
        assert_eq!(block.write(0, &microsecond), Effect::Continue);
        block.read(4, &mut [0; 4]);
        assert_eq!(block.write(0, &microsecond), Effect::Sleep(Duration::from_micros(1)));
    }

    #[test]
    fn other_accesses_do_nothing() {
        let mut block = Paravirt::new(PORTS, ControlWord::default());
        assert_eq!(block.write(4, &[1]), Effect::Continue);
        assert_eq!(block.write(0x30, &[1]), Effect::Continue);
        let mut data = [0xff; 4];
        block.read(0, &mut data);
        assert_eq!(data, [0xff; 4]);
    }
    proptest! {
        #[test]
        fn no_offset_and_no_length_makes_it_panic(
            offset in prop_oneof![0_u64..16, any::<u64>()],
            mut data in prop::collection::vec(any::<u8>(), 0..17),
        ) {
            let mut block = Paravirt::new(PORTS, ControlWord::default());
            block.read(offset, &mut data);
            let effect = block.write(offset, &data);
            prop_assert!(matches!(offset, 0 | 8) || effect == Effect::Continue);
        }
    }
}
