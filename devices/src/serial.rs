//! The serial port: a 16550A whose transmitter is a sink in the VMM.

use std::convert::Infallible;
use std::io;

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

use crate::{Effect, PortDevice};

/// How many I/O ports a 16550A has.
pub const SERIAL_PORTS: u16 = 8;

/// Where the bytes go that a guest sends.
///
/// Called on the vCPU's thread with the device locked, so it must not block: a guest's output
/// never waits for whoever reads it.
pub trait SerialOutput: Send {
    /// Takes the next byte.
    fn byte(&mut self, byte: u8);
}

/// A serial port that raises no interrupts: its output is always ready and its input is empty, and
/// a guest that polls, as the built-in one does, needs no more.
pub struct SerialConsole<O: SerialOutput> {
    uart: Serial<NoInterrupt, NoEvents, Writer<O>>,
}

impl<O: SerialOutput> SerialConsole<O> {
    /// A port whose output goes to `output`.
    pub fn new(output: O) -> Self {
        Self { uart: Serial::new(NoInterrupt, Writer(output)) }
    }
}

impl<O: SerialOutput> PortDevice for SerialConsole<O> {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        // The UART's registers are one byte wide: of a wider access only the first byte is its.
        if let (Ok(register), [first, ..]) = (u8::try_from(offset), data) {
            *first = self.uart.read(register);
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Effect {
        if let (Ok(register), &[first, ..]) = (u8::try_from(offset), data) {
            // Neither part can fail here: the sink takes every byte, the trigger does nothing. The
            // one error left is a loopback FIFO that is full, where a real UART loses the byte too.
            let _ = self.uart.write(register, first);
        }
        Effect::Continue
    }
}

struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// vm-superio writes to an `io::Write`, one byte at a time.
struct Writer<O>(O);

impl<O: SerialOutput> io::Write for Writer<O> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            self.0.byte(byte);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    const TRANSMIT: u16 = 0;
    const LINE_STATUS: u16 = 5;
    const SCRATCH: u16 = 7;

    impl SerialOutput for Sender<u8> {
        fn byte(&mut self, byte: u8) {
            self.send(byte).unwrap();
        }
    }

    #[test]
    fn what_the_guest_sends_arrives_in_order() {
        let (output, sent) = channel();
        let mut port = SerialConsole::new(output);
        for byte in b"READY\n" {
            assert_eq!(port.write(TRANSMIT, &[*byte]), Effect::Continue);
        }
        assert_eq!(sent.try_iter().collect::<Vec<_>>(), b"READY\n");
    }

    #[test]
    fn the_transmitter_is_always_ready() {
        let mut port = SerialConsole::new(channel().0);
        let mut status = [0];
        port.read(LINE_STATUS, &mut status);
        assert_eq!(status[0] & 0x60, 0x60);
    }

    #[test]
    fn a_wide_access_touches_one_register_only() {
        let mut port = SerialConsole::new(channel().0);
        port.write(SCRATCH, &[0x5a, 0x11, 0x22, 0x33]);
        let mut data = [0xff; 4];
        port.read(SCRATCH, &mut data);
        assert_eq!(data, [0x5a, 0xff, 0xff, 0xff]);
    }
}
