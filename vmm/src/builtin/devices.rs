//! The devices that only the built-in guest has: the paravirtual block.

use std::sync::{Arc, Mutex};

use pagefold_devices::{Buses, ControlWord, InsertError, Paravirt, ParavirtPorts};
use pagefold_guest::ports;

use crate::pc::layout;

// Its serial port is its machine's.
const _: () = assert!(ports::SERIAL_PORT == *layout::SERIAL.start());

/// Puts them where the guest looks for them: a block whose CONTROL register reads `control`.
pub(super) fn insert(buses: &mut Buses, control: ControlWord) -> Result<(), InsertError> {
    let block = ports::BLOCK_PORT..=ports::BLOCK_PORT + (ports::BLOCK_LEN - 1);
    let offsets = ParavirtPorts {
        sleep: ports::SLEEP_PORT - ports::BLOCK_PORT,
        control: ports::CONTROL_PORT - ports::BLOCK_PORT,
        exit: ports::EXIT_PORT - ports::BLOCK_PORT,
    };
    let device = Arc::new(Mutex::new(Paravirt::new(offsets, control)));
    buses.ports.insert("paravirtual block", block, device)
}
