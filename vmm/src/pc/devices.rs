//! Serial port, keyboard controller and power registers.

use std::sync::{Arc, Mutex};

use pagefold_devices::{Buses, I8042, InsertError, PowerRegisters, SerialConsole};

use super::IrqLine;
use super::layout;
use crate::console::Console;

/// Puts them where guests look for them: a serial port that prints to `output` and raises `serial`.
///
/// # Errors
///
/// When two of them are at one port: a fault of this table.
pub(crate) fn devices(output: Console, serial: IrqLine) -> Result<Buses, InsertError> {
    let mut buses = Buses::default();
    let device = Arc::new(Mutex::new(SerialConsole::with_interrupt(output, serial)));
    buses.ports.insert("serial port", layout::SERIAL, device)?;
    let device = Arc::new(Mutex::new(I8042::default()));
    buses.ports.insert("keyboard controller", layout::I8042, device)?;
    let device = Arc::new(Mutex::new(PowerRegisters));
    buses.ports.insert("power registers", layout::POWER_PORTS, device)?;
    Ok(buses)
}
