//! Sleep control, sleep status and reset: a byte each.
//!
//! Source: ACPI 6.5, section 4.8.3.7 (sleep control and status registers), 4.8.3.6 (reset register).

use crate::{BusDevice, Effect};

/// What the guest writes to reset the machine.
pub const RESET_VALUE: u8 = 1;

/// The sleep type of S5, "soft off".
pub const SLEEP_TYPE_OFF: u8 = 5;

/// `SLP_EN`: go to sleep now.
const SLEEP_ENABLE: u8 = 1 << 5;
/// Where `SLP_TYP` is.
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0b111;

/// The registers, side by side.
#[derive(Debug, Clone, Copy, Default)]
pub struct PowerRegisters;

impl PowerRegisters {
    /// Where the sleep control register is.
    pub const SLEEP_CONTROL: u16 = 0;
    /// Where the sleep status register is.
    pub const SLEEP_STATUS: u16 = 1;
    /// Where the reset register is.
    pub const RESET: u16 = 2;
    /// How many ports they take.
    pub const PORTS: u16 = 3;
}

impl BusDevice for PowerRegisters {
    /// Reads as zero: it has never slept, and is not about to.
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let [first, ..] = data {
            *first = 0;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let (Ok(register), &[value, ..]) = (u16::try_from(offset), data) else {
            return Effect::Continue;
        };
        let sleep_type = (value >> SLEEP_TYPE_SHIFT) & SLEEP_TYPE_MASK;
        match register {
            Self::SLEEP_CONTROL if value & SLEEP_ENABLE != 0 && sleep_type == SLEEP_TYPE_OFF => {
                Effect::PowerOff
            }
            Self::RESET if value == RESET_VALUE => Effect::Reset,
            _ => Effect::Continue,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_for_good_turns_it_off_and_nothing_else_does() {
        let write = |offset: u16, value| PowerRegisters.write(offset.into(), &[value]);
        let off = SLEEP_TYPE_OFF << SLEEP_TYPE_SHIFT;
        assert_eq!(write(PowerRegisters::SLEEP_CONTROL, off | SLEEP_ENABLE), Effect::PowerOff);
        assert_eq!(write(PowerRegisters::RESET, RESET_VALUE), Effect::Reset);
        for (offset, value) in [
            (PowerRegisters::SLEEP_CONTROL, off),
            (PowerRegisters::SLEEP_CONTROL, SLEEP_ENABLE),
            (PowerRegisters::SLEEP_STATUS, off | SLEEP_ENABLE),
            (PowerRegisters::RESET, 0),
            (7, RESET_VALUE),
        ] {
            assert_eq!(write(offset, value), Effect::Continue, "{offset} {value}");
        }
        assert_eq!(PowerRegisters.write(0, &[]), Effect::Continue);
    }
}
