//! What to do about an exit: a function of the exit and the devices alone.

use std::time::Duration;

use pagefold_devices::{Effect, PortBus};

use super::StopReason;
use super::exit::VmExit;

/// What follows an exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The guest goes on.
    Enter,
    /// See whether there is a command, then the guest goes on.
    Attend,
    /// The guest goes on after this time.
    Sleep(Duration),
    /// The guest has ended.
    Stop(StopReason),
}

/// Answers `exit` from the devices on `ports`.
pub(crate) fn next_step(exit: VmExit<'_>, ports: &PortBus) -> Step {
    match exit {
        VmExit::PortRead { port, width, data } => {
            for access in data.chunks_mut(width.max(1)) {
                ports.read(port, access);
            }
            Step::Enter
        }
        VmExit::PortWrite { port, width, data } => data
            .chunks(width.max(1))
            .map(|access| ports.write(port, access))
            .fold(Step::Enter, after),
        // Where nothing is, reads give all ones and writes are lost, as on a real bus.
        VmExit::MmioRead { data, .. } => {
            data.fill(0xff);
            Step::Enter
        }
        VmExit::MmioWrite { .. } => Step::Enter,
        VmExit::Interrupted => Step::Attend,
        VmExit::Halt => Step::Stop(StopReason::Halted),
        VmExit::Shutdown => Step::Stop(StopReason::TripleFault),
        VmExit::SystemEvent { kind } => Step::Stop(StopReason::SystemEvent { event: kind }),
        VmExit::FailEntry { reason, cpu } => Step::Stop(StopReason::FailEntry { reason, cpu }),
        VmExit::InternalError(error) => Step::Stop(StopReason::InternalError(error)),
        VmExit::MemoryFault { address, len } => {
            Step::Stop(StopReason::MemoryFault { address, len })
        }
        VmExit::RunFailed { errno } => Step::Stop(StopReason::RunFailed { errno }),
        VmExit::Unexpected(exit) => Step::Stop(StopReason::Unexpected { exit }),
    }
}

/// A string instruction can have several effects: an end stands, and sleeps add up.
fn after(step: Step, effect: Effect) -> Step {
    match (step, effect) {
        (Step::Stop(reason), _) => Step::Stop(reason),
        (_, Effect::Exit(code)) => Step::Stop(StopReason::Exited { code }),
        (Step::Sleep(so_far), Effect::Sleep(more)) => Step::Sleep(so_far.saturating_add(more)),
        (_, Effect::Sleep(time)) => Step::Sleep(time),
        (step, Effect::Continue) => step,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use pagefold_devices::PortDevice;

    use super::*;
    use crate::vcpu::InternalError;

    const SLEEP: u16 = 0;
    const EXIT: u16 = 1;

    /// Records writes; reads count up from 1.
    struct Probe {
        writes: Sender<(u16, Vec<u8>)>,
        reads: u8,
    }

    impl PortDevice for Probe {
        fn read(&mut self, _offset: u16, data: &mut [u8]) {
            self.reads += 1;
            data.fill(self.reads);
        }

        fn write(&mut self, offset: u16, data: &[u8]) -> Effect {
            self.writes.send((offset, data.to_vec())).unwrap();
            match offset {
                SLEEP => Effect::Sleep(Duration::from_secs(data[0].into())),
                EXIT => Effect::Exit(data[0].into()),
                _ => Effect::Continue,
            }
        }
    }

    fn bus() -> (PortBus, impl Fn() -> Vec<(u16, Vec<u8>)>) {
        let (writes, written) = channel();
        let mut ports = PortBus::new();
        ports.insert(0x10..=0x1f, Box::new(Probe { writes, reads: 0 })).unwrap();
        (ports, move || written.try_iter().collect())
    }

    #[test]
    fn a_port_read_is_filled_by_its_device() {
        let (ports, _written) = bus();
        let mut data = [0; 2];
        let exit = VmExit::PortRead { port: 0x10, width: 2, data: &mut data };
        assert_eq!(next_step(exit, &ports), Step::Enter);
        assert_eq!(data, [1, 1]);
    }

    #[test]
    fn a_string_access_is_as_many_accesses_to_one_port() {
        let (ports, written) = bus();
        let mut data = [0; 6];
        let exit = VmExit::PortRead { port: 0x10, width: 2, data: &mut data };
        assert_eq!(next_step(exit, &ports), Step::Enter);
        assert_eq!(data, [1, 1, 2, 2, 3, 3]);
        let exit = VmExit::PortWrite { port: 0x14, width: 1, data: b"hi" };
        assert_eq!(next_step(exit, &ports), Step::Enter);
        assert_eq!(written(), [(4, b"h".to_vec()), (4, b"i".to_vec())]);
    }

    #[test]
    fn a_device_can_put_the_guest_to_sleep_or_end_it() {
        let (ports, _written) = bus();
        let write = |port, data| next_step(VmExit::PortWrite { port, width: 1, data }, &ports);
        assert_eq!(write(0x10, &[3]), Step::Sleep(Duration::from_secs(3)));
        assert_eq!(write(0x10, &[3, 4]), Step::Sleep(Duration::from_secs(7)));
        assert_eq!(write(0x11, &[5, 6]), Step::Stop(StopReason::Exited { code: 5 }));
        assert_eq!(write(0x80, &[5]), Step::Enter);
    }

    #[test]
    fn a_width_of_zero_does_not_hang_or_panic() {
        let (ports, _written) = bus();
        let exit = VmExit::PortWrite { port: 0x14, width: 0, data: &[1] };
        assert_eq!(next_step(exit, &ports), Step::Enter);
    }

    #[test]
    fn where_no_memory_is_reads_give_all_ones() {
        let (ports, _written) = bus();
        let mut data = [0; 8];
        let exit = VmExit::MmioRead { address: 0xfee0_0000, data: &mut data };
        assert_eq!(next_step(exit, &ports), Step::Enter);
        assert_eq!(data, [0xff; 8]);
        let exit = VmExit::MmioWrite { address: 0, data: &[1] };
        assert_eq!(next_step(exit, &ports), Step::Enter);
    }

    #[test]
    fn each_way_to_end_has_its_reason() {
        let (ports, _written) = bus();
        let error = InternalError { suberror: 1, instruction: vec![0x0f, 0x0b] };
        for (exit, reason) in [
            (VmExit::Halt, StopReason::Halted),
            (VmExit::Shutdown, StopReason::TripleFault),
            (VmExit::SystemEvent { kind: 1 }, StopReason::SystemEvent { event: 1 }),
            (VmExit::FailEntry { reason: 7, cpu: 1 }, StopReason::FailEntry { reason: 7, cpu: 1 }),
            (VmExit::InternalError(error.clone()), StopReason::InternalError(error)),
            (
                VmExit::MemoryFault { address: 1, len: 2 },
                StopReason::MemoryFault { address: 1, len: 2 },
            ),
            (VmExit::RunFailed { errno: 14 }, StopReason::RunFailed { errno: 14 }),
            (VmExit::Unexpected("x".to_owned()), StopReason::Unexpected { exit: "x".to_owned() }),
        ] {
            assert_eq!(next_step(exit, &ports), Step::Stop(reason));
        }
        assert_eq!(next_step(VmExit::Interrupted, &ports), Step::Attend);
    }
}
