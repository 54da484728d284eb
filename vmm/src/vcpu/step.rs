//! What to do about an exit: a function of the exit and the devices alone.

use std::time::Duration;

use pagefold_devices::{Buses, Effect};

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

/// Answers `exit` from the devices on `buses`.
pub(crate) fn next_step(exit: VmExit<'_>, buses: &Buses) -> Step {
    match exit {
        VmExit::PortRead { port, width, data } => {
            for access in data.chunks_mut(width.max(1)) {
                buses.ports.read(port, access);
            }
            Step::Enter
        }
        VmExit::PortWrite { port, width, data } => data
            .chunks(width.max(1))
            .map(|access| buses.ports.write(port, access))
            .fold(Step::Enter, after),
        VmExit::MmioRead { address, data } => {
            buses.mmio.read(address, data);
            Step::Enter
        }
        VmExit::MmioWrite { address, data } => after(Step::Enter, buses.mmio.write(address, data)),
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
        (_, Effect::PowerOff) => Step::Stop(StopReason::PoweredOff),
        (_, Effect::Reset) => Step::Stop(StopReason::Reset),
        (Step::Sleep(so_far), Effect::Sleep(more)) => Step::Sleep(so_far.saturating_add(more)),
        (_, Effect::Sleep(time)) => Step::Sleep(time),
        (step, Effect::Continue) => step,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{Arc, Mutex};

    use pagefold_devices::BusDevice;

    use super::*;
    use crate::vcpu::InternalError;

    const SLEEP: u64 = 0;
    const EXIT: u64 = 1;
    const MMIO: u64 = 0xd000_0000;

    /// Records writes; reads count up from 1.
    struct Probe {
        writes: Sender<(u64, Vec<u8>)>,
        reads: u8,
    }

    impl BusDevice for Probe {
        fn read(&mut self, _offset: u64, data: &mut [u8]) {
            self.reads += 1;
            data.fill(self.reads);
        }

        fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
            self.writes.send((offset, data.to_vec())).unwrap();
            match offset {
                SLEEP => Effect::Sleep(Duration::from_secs(data[0].into())),
                EXIT => Effect::Exit(data[0].into()),
                _ => Effect::Continue,
            }
        }
    }

    /// One device at ports from 0x10 and at addresses from `MMIO`.
    fn devices() -> (Buses, impl Fn() -> Vec<(u64, Vec<u8>)>) {
        let (writes, written) = channel();
        let probe = Arc::new(Mutex::new(Probe { writes, reads: 0 }));
        let mut buses = Buses::default();
        buses.ports.insert("probe", 0x10..=0x1f, probe.clone()).unwrap();
        buses.mmio.insert("probe", MMIO..=MMIO + 0xfff, probe).unwrap();
        (buses, move || written.try_iter().collect())
    }

    #[test]
    fn a_port_read_is_filled_by_its_device() {
        let (buses, _written) = devices();
        let mut data = [0; 2];
        let exit = VmExit::PortRead { port: 0x10, width: 2, data: &mut data };
        assert_eq!(next_step(exit, &buses), Step::Enter);
        assert_eq!(data, [1, 1]);
    }

    #[test]
    fn a_string_access_is_as_many_accesses_to_one_port() {
        let (buses, written) = devices();
        let mut data = [0; 6];
        let exit = VmExit::PortRead { port: 0x10, width: 2, data: &mut data };
        assert_eq!(next_step(exit, &buses), Step::Enter);
        assert_eq!(data, [1, 1, 2, 2, 3, 3]);
        let exit = VmExit::PortWrite { port: 0x14, width: 1, data: b"hi" };
        assert_eq!(next_step(exit, &buses), Step::Enter);
        assert_eq!(written(), [(4, b"h".to_vec()), (4, b"i".to_vec())]);
    }

    #[test]
    fn a_device_can_put_the_guest_to_sleep_or_end_it() {
        let (buses, _written) = devices();
        let write = |port, data| next_step(VmExit::PortWrite { port, width: 1, data }, &buses);
        assert_eq!(write(0x10, &[3]), Step::Sleep(Duration::from_secs(3)));
        assert_eq!(write(0x10, &[3, 4]), Step::Sleep(Duration::from_secs(7)));
        assert_eq!(write(0x11, &[5, 6]), Step::Stop(StopReason::Exited { code: 5 }));
        assert_eq!(write(0x80, &[5]), Step::Enter);
    }

    #[test]
    fn a_width_of_zero_does_not_hang_or_panic() {
        let (buses, _written) = devices();
        let exit = VmExit::PortWrite { port: 0x14, width: 0, data: &[1] };
        assert_eq!(next_step(exit, &buses), Step::Enter);
    }

    #[test]
    fn where_no_memory_is_reads_give_all_ones() {
        let (buses, _written) = devices();
        let mut data = [0; 8];
        let exit = VmExit::MmioRead { address: 0xfee0_0000, data: &mut data };
        assert_eq!(next_step(exit, &buses), Step::Enter);
        assert_eq!(data, [0xff; 8]);
        let exit = VmExit::MmioWrite { address: 0, data: &[1] };
        assert_eq!(next_step(exit, &buses), Step::Enter);
    }

    #[test]
    fn a_memory_access_reaches_its_device_and_has_its_effect() {
        let (buses, written) = devices();
        let mut data = [0; 8];
        let exit = VmExit::MmioRead { address: MMIO + 8, data: &mut data };
        assert_eq!(next_step(exit, &buses), Step::Enter);
        assert_eq!(data, [1; 8]);
        let write = |address, data| next_step(VmExit::MmioWrite { address, data }, &buses);
        assert_eq!(write(MMIO + 0xfff, &[1, 2, 3, 4][..]), Step::Enter);
        assert_eq!(write(MMIO, &[3]), Step::Sleep(Duration::from_secs(3)));
        assert_eq!(write(MMIO + EXIT, &[5]), Step::Stop(StopReason::Exited { code: 5 }));
        assert_eq!(write(MMIO + 0x1000, &[5]), Step::Enter);
        assert_eq!(written(), [(0xfff, vec![1, 2, 3, 4]), (0, vec![3]), (1, vec![5])]);
        assert_eq!(buses.mmio.unclaimed().writes, 1);
    }

    #[test]
    fn each_way_to_end_has_its_reason() {
        let (buses, _written) = devices();
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
            assert_eq!(next_step(exit, &buses), Step::Stop(reason));
        }
        assert_eq!(next_step(VmExit::Interrupted, &buses), Step::Attend);
    }
}
