//! The devices of the built-in guest: a serial port, and the paravirtual block.

use std::sync::{Arc, Mutex};

use pagefold_dedup::VmId;
use pagefold_devices::{Buses, InsertError, Paravirt, ParavirtPorts};
use pagefold_devices::{SERIAL_PORTS, SerialConsole};
use pagefold_guest::ports;
use pagefold_guest::report::MAX_LINE_BYTES;

use super::Builtin;
use crate::console::{Console, Listener};
use crate::dedup_host::FoldingWaker;
use crate::watch::Watch;

/// Puts them where the guest looks for them.
pub(crate) fn devices(builtin: &Builtin, output: Console) -> Result<Buses, InsertError> {
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
    let device = Arc::new(Mutex::new(Paravirt::new(offsets, builtin.control.clone())));
    buses.ports.insert("paravirtual block", block, device)?;
    Ok(buses)
}

/// The output of the serial port of `vm`: its lines go to `watch`, and folding is woken when the guest
/// is ready.
pub(crate) fn output(vm: VmId, watch: Arc<Watch>, folding: FoldingWaker) -> Console {
    Console::new(vm, MAX_LINE_BYTES, Box::new(ReportListener { watch, folding }))
}

/// Keeps what the guest reports where it is waited for.
struct ReportListener {
    watch: Arc<Watch>,
    folding: FoldingWaker,
}

impl Listener for ReportListener {
    fn on_line(&mut self, line: &[u8]) {
        if self.watch.take_line(line) {
            self.folding.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use pagefold_devices::SerialOutput;

    use super::*;

    #[test]
    fn lines_are_taken_as_they_end() {
        let watch = Arc::new(Watch::default());
        let mut console = output(VmId(0), Arc::clone(&watch), FoldingWaker::default());
        let say = |console: &mut Console, text: &str| text.bytes().for_each(|b| console.byte(b));
        say(&mut console, "READY pa");
        assert!(watch.now().ready_at.is_none());
        say(&mut console, "ges=1\nPANIC why\n");
        assert!(watch.now().ready_at.is_some());
        assert_eq!(watch.now().reports.panic.as_deref(), Some("why"));
    }
}
