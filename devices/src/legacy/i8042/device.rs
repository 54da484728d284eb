//! Its ports, as the guest sees them.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vm_superio::{I8042Device, Trigger};

use crate::{BusDevice, Effect};

/// Ports from the data port to the command port.
pub const I8042_PORTS: u16 = 5;

/// A keyboard controller that resets the machine and does nothing else.
pub struct I8042 {
    controller: I8042Device<ResetLine>,
    line: ResetLine,
}

/// Whether a reset has been commanded.
#[derive(Clone, Default)]
struct ResetLine(Arc<AtomicBool>);

impl Trigger for ResetLine {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Default for I8042 {
    fn default() -> Self {
        let line = ResetLine::default();
        Self { controller: I8042Device::new(line.clone()), line }
    }
}

impl BusDevice for I8042 {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let (Ok(port), [first, ..]) = (u8::try_from(offset), data) {
            *first = self.controller.read(port);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let (Ok(port), &[first, ..]) = (u8::try_from(offset), data) {
            // Its line does not fail.
            let _ = self.controller.write(port, first);
        }
        if self.line.0.load(Ordering::Relaxed) { Effect::Reset } else { Effect::Continue }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: u64 = 4;

    #[test]
    fn only_the_command_to_reset_does_anything() {
        let mut controller = I8042::default();
        for (offset, byte) in [(0, 0xfe), (COMMAND, 0x20), (COMMAND, 0xff), (9, 0xfe)] {
            assert_eq!(controller.write(offset, &[byte]), Effect::Continue, "{offset} {byte:#x}");
        }
        assert_eq!(controller.write(COMMAND, &[]), Effect::Continue);
        assert_eq!(controller.write(COMMAND, &[0xfe, 1]), Effect::Reset);
    }

    #[test]
    fn it_never_seems_busy() {
        let mut status = [0xff; 2];
        I8042::default().read(COMMAND, &mut status);
        assert_eq!(status, [0, 0xff]);
        I8042::default().read(1 << 40, &mut []);
    }
}
