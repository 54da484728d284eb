//! The devices of the built-in guest: a serial port, and the paravirtual block.

use std::sync::{Arc, Mutex};

use pagefold_dedup::VmId;
use pagefold_devices::{Buses, ControlWord, InsertError, Paravirt, ParavirtPorts};
use pagefold_devices::{SERIAL_PORTS, SerialConsole};
use pagefold_guest::ports;
use pagefold_guest::report::MAX_LINE_BYTES;

use crate::console::{Console, Listener};

/// Puts them where the guest looks for them: a serial port that prints to `output`, and a block whose CONTROL
/// register reads `control`.
pub(crate) fn devices(control: ControlWord, output: Console) -> Result<Buses, InsertError> {
    let mut buses = Buses::default();
    let serial = ports::SERIAL_PORT..=ports::SERIAL_PORT + (SERIAL_PORTS - 1);
    let device = Arc::new(Mutex::new(SerialConsole::new(output)));
    buses.ports.insert("serial port", serial, device)?;
    let block = ports::BLOCK_PORT..=ports::BLOCK_PORT + (ports::BLOCK_LEN - 1);
    let offsets = ParavirtPorts {
        sleep: ports::SLEEP_PORT - ports::BLOCK_PORT,
        control: ports::CONTROL_PORT - ports::BLOCK_PORT,
        exit: ports::EXIT_PORT - ports::BLOCK_PORT,
    };
    let device = Arc::new(Mutex::new(Paravirt::new(offsets, control)));
    buses.ports.insert("paravirtual block", block, device)?;
    Ok(buses)
}

/// The output of the serial port of `vm`, whose lines go to `listener`.
pub(crate) fn output(vm: VmId, listener: Box<dyn Listener>) -> Console {
    Console::new(vm, MAX_LINE_BYTES, listener)
}
