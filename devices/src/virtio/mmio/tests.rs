use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use virtio_bindings::bindings::virtio_ring::VRING_DESC_F_WRITE;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::registers::*;
use super::*;
use crate::virtio::rng::Rng;
use crate::{BusDevice, Interrupt};

type Memory = GuestMemoryMmap<()>;

const VERSION_1_WORD: u32 = 1;
const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 64;
const READY: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

#[derive(Debug, Default)]
struct Line(AtomicU64);

impl Interrupt for Line {
    fn trigger(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

struct Machine {
    memory: Memory,
    line: Arc<Line>,
    transport: MmioTransport<Memory>,
}

impl Machine {
    fn new() -> Self {
        let memory = Memory::from_ranges(&[(GuestAddress(0), 0x2_0000)]).unwrap();
        let line = Arc::<Line>::default();
        let device = Box::new(Rng::default());
        let transport = MmioTransport::new(device, memory.clone(), Box::new(Arc::clone(&line)));
        Self { memory, line, transport }
    }

    fn read(&mut self, register: u64) -> u32 {
        let mut data = [0xff; 4];
        self.transport.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    fn refused(&self) -> u64 {
        self.transport.metrics().counts().refused_accesses
    }

    /// As a driver does up to its queue.
    fn agree(&mut self) {
        self.write(STATUS, 0);
        self.write(STATUS, ACKNOWLEDGE);
        self.write(STATUS, ACKNOWLEDGE | DRIVER);
        self.write(DRIVER_FEATURES_SEL, 1);
        self.write(DRIVER_FEATURES, VERSION_1_WORD);
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(self.read(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK);
    }

    fn set_up_queue(&mut self, [descriptors, available, used]: [u64; 3], size: u32) {
        self.write(QUEUE_SEL, 0);
        self.write(QUEUE_NUM, size);
        for (low, address) in
            [(QUEUE_DESC_LOW, descriptors), (QUEUE_DRIVER_LOW, available), (QUEUE_DEVICE_LOW, used)]
        {
            self.write(low, u32::try_from(address & u64::from(u32::MAX)).unwrap());
            self.write(low + 4, u32::try_from(address >> 32).unwrap());
        }
        self.write(QUEUE_READY, 1);
    }
}

#[test]
fn a_driver_finds_the_device_agrees_on_features_and_has_its_request_carried_out() {
    let mut machine = Machine::new();
    assert_eq!([MAGIC, VERSION, DEVICE_ID].map(|at| machine.read(at)), [MAGIC_VALUE, 2, 4]);
    machine.agree();
    assert_eq!(machine.read(QUEUE_NUM_MAX), 64);
    let memory = machine.memory.clone();
    let driver = MockSplitQueue::new(&memory, 16);
    let request = Descriptor::new(0x1_0000, 64, u16::try_from(VRING_DESC_F_WRITE).unwrap(), 0);
    driver.build_multiple_desc_chains(&[RawDescriptor::from(request)]).unwrap();
    let rings = [driver.desc_table_addr(), driver.avail_addr(), driver.used_addr()];
    machine.set_up_queue(rings.map(|address| address.0), 16);
    assert_eq!(machine.read(QUEUE_READY), 1);
    assert_eq!(machine.transport.process_queue(0), Ok(false), "the driver is not ready");
    machine.write(STATUS, READY);
    machine.transport.set_paused(true);
    assert_eq!(machine.transport.process_queue(0), Ok(false));
    assert_eq!(u16::from_le(driver.used().idx().load()), 0, "the device is paused");
    machine.transport.set_paused(false);
    assert_eq!(machine.transport.process_queue(0), Ok(false));
    assert_eq!(u16::from_le(driver.used().idx().load()), 1);
    assert_eq!((machine.read(INTERRUPT_STATUS), machine.line.0.load(Ordering::Relaxed)), (1, 1));
    machine.write(INTERRUPT_ACK, 1);
    assert_eq!(machine.read(INTERRUPT_STATUS), 0);
    assert_eq!(machine.refused(), 0);
    machine.write(STATUS, 0);
    assert_eq!([STATUS, QUEUE_READY].map(|at| machine.read(at)), [0, 0]);
    assert_eq!(machine.transport.metrics().counts().resets, 2);
}

#[test]
fn features_that_are_not_offered_or_without_version_1_are_not_agreed_on() {
    for (sel, features) in [(0, 0), (1, 1 | 1 << 31)] {
        let mut machine = Machine::new();
        machine.write(STATUS, ACKNOWLEDGE | DRIVER);
        machine.write(DRIVER_FEATURES_SEL, sel);
        machine.write(DRIVER_FEATURES, features);
        machine.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(machine.read(STATUS), ACKNOWLEDGE | DRIVER);
        machine.write(STATUS, READY);
        assert_eq!(machine.read(STATUS), ACKNOWLEDGE | DRIVER);
    }
}

#[test]
fn a_queue_beyond_memory_puts_the_device_out_of_order_until_it_is_reset() {
    for rings in [[0, 0x1000, !0xfff], [0x1_fff0, 0, 0], [1 << 40, 0, 0]] {
        let mut machine = Machine::new();
        machine.agree();
        machine.set_up_queue(rings, 16);
        machine.write(STATUS, READY);
        assert_eq!(machine.read(STATUS), READY | NEEDS_RESET, "{rings:x?}");
        assert_eq!(machine.read(INTERRUPT_STATUS), CONFIG_CHANGE);
        assert_eq!(machine.transport.process_queue(0), Ok(false));
        machine.agree();
    }
}

#[test]
fn a_ring_that_makes_no_sense_puts_the_device_out_of_order() {
    let mut machine = Machine::new();
    machine.agree();
    machine.set_up_queue([0, 0x1000, 0x2000], 16);
    machine.write(STATUS, READY);
    // More requests than the queue has descriptors.
    vm_memory::Bytes::write_obj(&machine.memory, 500_u16, GuestAddress(0x1002)).unwrap();
    assert!(machine.transport.process_queue(0).is_err());
    assert_eq!(machine.read(STATUS), READY | NEEDS_RESET);
    assert_eq!(machine.transport.metrics().counts().queue_errors, 1);
}

#[test]
fn what_no_driver_may_do_is_refused_and_counted() {
    let mut machine = Machine::new();
    // Before there is a driver; sizes that there are not; queues that there are not; a half of a register.
    machine.write(QUEUE_NUM, 16);
    machine.write(STATUS, DRIVER_OK);
    machine.write(QUEUE_NOTIFY, 7);
    machine.write(0x300, 1);
    machine.transport.write(STATUS, &[1]);
    machine.transport.read(STATUS, &mut [0; 8]);
    assert_eq!((machine.refused(), machine.read(STATUS)), (6, 0));
    machine.agree();
    machine.write(QUEUE_NUM, 48);
    machine.write(QUEUE_NUM, 128);
    machine.set_up_queue([8, 0, 0], 16);
    assert_eq!(machine.read(QUEUE_READY), 0, "the table is not aligned");
    machine.write(STATUS, ACKNOWLEDGE);
    assert_eq!(machine.refused(), 10);
    assert_eq!(machine.read(0x0b0), u32::MAX);
}

#[test]
fn nothing_is_done_and_no_memory_kept_when_the_machine_is_gone() {
    let mut machine = Machine::new();
    machine.agree();
    machine.set_up_queue([0, 0x1000, 0x2000], 16);
    machine.transport.end();
    machine.write(STATUS, READY);
    assert_eq!(machine.transport.process_queue(0), Ok(false));
    assert!(machine.transport.memory.is_none());
}

/// What a hostile driver does.
#[derive(Debug, Clone)]
enum Access {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Process(usize),
    Memory(u64, Vec<u8>),
}

fn access() -> impl Strategy<Value = Access> {
    let register = prop_oneof![4 => (0_u64..0x48).prop_map(|at| 4 * at), 1 => 0_u64..0x1100];
    let value = prop_oneof![
        Just(vec![0; 4]),
        (0_u32..32).prop_map(|bit| (1_u32 << bit).to_le_bytes().to_vec()),
        Just(READY.to_le_bytes().to_vec()),
        Just((ACKNOWLEDGE | DRIVER).to_le_bytes().to_vec()),
        Just((ACKNOWLEDGE | DRIVER | FEATURES_OK).to_le_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 1..9),
    ];
    prop_oneof![
        (register.clone(), 1_usize..9).prop_map(|(at, len)| Access::Read(at, len)),
        (register, value).prop_map(|(at, value)| Access::Write(at, value)),
        (0_usize..3).prop_map(Access::Process),
        (0_u64..0x4000, prop::collection::vec(any::<u8>(), 1..64))
            .prop_map(|(at, bytes)| Access::Memory(at, bytes)),
    ]
}

proptest! {
    #[test]
    fn no_driver_makes_a_transport_panic_or_go_on_for_ever(
        accesses in prop::collection::vec(access(), 0..64),
        is_ready in any::<bool>(),
    ) {
        let mut machine = Machine::new();
        if is_ready {
            machine.agree();
            machine.set_up_queue([0, 0x1000, 0x2000], 16);
            machine.write(STATUS, READY);
        }
        for access in accesses {
            match access {
                Access::Read(at, len) => machine.transport.read(at, &mut vec![0xff; len]),
                Access::Write(at, value) => drop(machine.transport.write(at, &value)),
                Access::Process(queue) => drop(machine.transport.process_queue(queue)),
                Access::Memory(at, bytes) => {
                    vm_memory::Bytes::write_slice(&machine.memory, &bytes, GuestAddress(at)).unwrap();
                }
            }
        }
        machine.agree();
        prop_assert_eq!(machine.read(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK);
    }
}
