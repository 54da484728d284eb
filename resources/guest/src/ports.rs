//! The I/O ports the guest touches.
//!
//! Serial output goes to the transmit register alone: the guest neither programs the UART nor polls
//! its status. All registers of the paravirtual block are 4 bytes wide and are accessed whole.

/// Serial transmit register (COM1): one byte written is one byte sent.
pub const SERIAL_PORT: u16 = 0x3f8;

/// First port of the paravirtual block.
pub const BLOCK_PORT: u16 = 0x500;
/// Ports in the paravirtual block.
pub const BLOCK_LEN: u16 = 12;

/// Write: microseconds for which the VMM may park the vCPU. A change of [`CONTROL_PORT`] ends it early.
pub const SLEEP_PORT: u16 = 0x500;
/// Read: what the guest is to do, a [`Control`].
pub const CONTROL_PORT: u16 = 0x504;
/// Write: the exit code. The VM stops.
pub const EXIT_PORT: u16 = 0x508;

/// Exit code: finished as asked, and no wrong byte was ever found.
pub const EXIT_OK: u32 = 0;
/// Exit code: finished as asked, but wrong bytes were found.
pub const EXIT_CORRUPT: u32 = 1;
/// Exit code: the parameter page made no sense; a `PANIC` line has the reason.
pub const EXIT_BAD_PARAMS: u32 = 2;
/// Exit code: the guest panicked; a `PANIC` line has the reason.
pub const EXIT_PANIC: u32 = 101;

/// What [`CONTROL_PORT`] commands the guest to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Control {
    /// Run the workload.
    #[default]
    Run = 0,
    /// Stop writing, put everything back to its resting content, print `REST`, go on verifying.
    Rest = 1,
    /// Put everything back, verify every page once, print `DONE`, exit.
    Finish = 2,
}

impl Control {
    /// The value of the register.
    pub const fn to_register(self) -> u32 {
        self as u32
    }

    /// What a value of the register means, `None` for a value that means nothing.
    pub const fn from_register(value: u32) -> Option<Self> {
        match value {
            0 => Some(Self::Run),
            1 => Some(Self::Rest),
            2 => Some(Self::Finish),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_survives_the_register() {
        for control in [Control::Run, Control::Rest, Control::Finish] {
            assert_eq!(Control::from_register(control.to_register()), Some(control));
        }
    }

    #[test]
    fn a_port_that_nobody_answers_is_no_control() {
        assert_eq!(Control::from_register(u32::MAX), None);
        assert_eq!(Control::from_register(3), None);
    }
}
