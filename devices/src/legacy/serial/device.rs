//! The registers, as the guest sees them.

use std::io;
use std::sync::Arc;

use vm_superio::{Serial, Trigger};

use super::metrics::SerialMetrics;
use super::state::{RestoreSerialError, SerialState};
use crate::{BusDevice, Effect, Interrupt, NoInterrupt};

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

/// A serial port. Its transmitter is always ready.
pub struct SerialConsole<O: SerialOutput, I: Interrupt = NoInterrupt> {
    pub(super) uart: Serial<Line<I>, Arc<SerialMetrics>, Writer<O>>,
}

impl<O: SerialOutput> SerialConsole<O> {
    /// A port whose output goes to `output`, and that raises no interrupts: enough for a guest that
    /// polls, as the built-in one does.
    pub fn new(output: O) -> Self {
        Self::with_interrupt(output, NoInterrupt)
    }
}

impl<O: SerialOutput, I: Interrupt> SerialConsole<O, I> {
    /// A port whose output goes to `output`, and that raises `interrupt`.
    pub fn with_interrupt(output: O, interrupt: I) -> Self {
        let metrics = Arc::default();
        let line = Line { interrupt, metrics: Arc::clone(&metrics) };
        Self { uart: Serial::with_events(line, metrics, Writer(output)) }
    }

    /// A port that goes on from `state`. An interrupt that was pending is raised again.
    ///
    /// # Errors
    ///
    /// When no port can be in that state.
    pub fn restore(
        state: SerialState,
        output: O,
        interrupt: I,
    ) -> Result<Self, RestoreSerialError> {
        let metrics = Arc::default();
        let line = Line { interrupt, metrics: Arc::clone(&metrics) };
        let uart = Serial::from_state(&state.checked()?, line, metrics, Writer(output));
        // Of its two reasons to fail one is checked, and the interrupt line does not fail.
        Ok(Self { uart: uart.map_err(|_| RestoreSerialError::TooMuchInput)? })
    }

    /// What a snapshot keeps of it. The output, the interrupt line and the metrics are its owner's.
    pub fn state(&self) -> SerialState {
        self.uart.state().into()
    }

    /// What it has done so far, and goes on doing.
    pub fn metrics(&self) -> Arc<SerialMetrics> {
        Arc::clone(self.uart.events())
    }
}

impl<O: SerialOutput, I: Interrupt> BusDevice for SerialConsole<O, I> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        // The UART's registers are one byte wide: of a wider access only the first byte is its.
        if let (Ok(register), [first, ..]) = (u8::try_from(offset), data) {
            *first = self.uart.read(register);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let (Ok(register), &[first, ..]) = (u8::try_from(offset), data) {
            // No part can fail here: the sink takes every byte, the line counts what it cannot
            // raise, and a loopback FIFO that is full loses the byte as in a real UART.
            let _ = self.uart.write(register, first);
        }
        Effect::Continue
    }
}

/// The interrupt line as vm-superio takes it. It does not fail: the UART would then leave the rest
/// of an access undone. What could not be raised is counted.
pub(super) struct Line<I> {
    interrupt: I,
    metrics: Arc<SerialMetrics>,
}

impl<I: Interrupt> Trigger for Line<I> {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        if self.interrupt.trigger().is_err() {
            self.metrics.count_failed_interrupt();
        }
        Ok(())
    }
}

/// vm-superio writes to an `io::Write`, one byte at a time.
pub(super) struct Writer<O>(O);

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
