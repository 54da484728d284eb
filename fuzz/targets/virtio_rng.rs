//! What a hostile driver does to an entropy source and its transport: registers in any order, rings and descriptors of
//! any bytes. Nothing panics or goes on for ever, only memory that a descriptor names as writable is written, what is
//! counted is what was done, and a reset makes the device usable again.

#![no_main]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pagefold_devices::virtio::MmioTransport;
use pagefold_devices::virtio::rng::Rng;
use pagefold_devices::{BusDevice, Interrupt};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

type Memory = GuestMemoryMmap<()>;

/// Rings that a friendly driver chooses, a page of buffers, and one that nothing names.
const RINGS: [u64; 3] = [0x0, 0x1000, 0x2000];
const BUFFERS: u64 = 0x3000;
const UNTOUCHED: u64 = 0x5000;
const MEMORY_BYTES: usize = 0x6000;
const QUEUE_SIZE: u16 = 16;

const STATUS: u64 = 0x70;
const READY: u32 = 0xf;

#[derive(Default)]
struct Line(AtomicU64);

impl Interrupt for Line {
    fn trigger(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let mut machine = Machine::new();
    let mut input = Unstructured::new(data);
    if input.arbitrary().unwrap_or(false) {
        machine.set_up();
    }
    while !input.is_empty() && machine.step(&mut input).is_ok() {}
    machine.check();
});

struct Machine {
    memory: Memory,
    line: Arc<Line>,
    transport: MmioTransport<Memory>,
    is_honest: bool,
}

impl Machine {
    fn new() -> Self {
        let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap();
        let line = Arc::<Line>::default();
        let device = Box::new(Rng::default());
        let transport = MmioTransport::new(device, memory.clone(), Box::new(Arc::clone(&line)));
        Self { memory, line, transport, is_honest: true }
    }

    fn write(&mut self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    fn status(&mut self) -> u32 {
        let mut data = [0; 4];
        self.transport.read(STATUS, &mut data);
        u32::from_le_bytes(data)
    }

    /// As a driver does that means well.
    fn set_up(&mut self) {
        self.write(STATUS, 0);
        assert_eq!(self.status(), 0);
        self.write(STATUS, 3);
        self.write(0x24, 1);
        self.write(0x20, 1);
        self.write(STATUS, 0xb);
        self.write(0x30, 0);
        self.write(0x38, QUEUE_SIZE.into());
        for (register, address) in [0x80, 0x90, 0xa0].into_iter().zip(RINGS) {
            self.write(register, u32::try_from(address).unwrap());
            self.write(register + 4, 0);
        }
        self.write(0x44, 1);
        self.write(STATUS, READY);
        assert_eq!(self.status(), READY);
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=5)? {
            0 => {
                self.is_honest = false;
                let (register, value): (u16, u32) = input.arbitrary()?;
                self.write(u64::from(register % 0x40) * 4, value);
            }
            1 => {
                self.is_honest = false;
                let (offset, len): (u16, u8) = input.arbitrary()?;
                let mut data = vec![0xff; usize::from(len % 8) + 1];
                self.transport.read(offset.into(), &mut data);
                self.transport.write(offset.into(), &data);
            }
            2 => {
                let (index, descriptor): (u8, Descriptor) = input.arbitrary()?;
                let at = RINGS[0] + 16 * u64::from(index % 16);
                self.memory.write_slice(&descriptor.bytes(), GuestAddress(at)).unwrap();
            }
            3 => {
                let (at, value): (u16, u16) = input.arbitrary()?;
                let at = RINGS[1] + u64::from(at % 40);
                self.memory.write_slice(&value.to_le_bytes(), GuestAddress(at)).unwrap();
            }
            4 => {
                let queue: u8 = input.arbitrary()?;
                _ = self.transport.process_queue(usize::from(queue % 2));
            }
            _ => self.transport.note_changed_config(),
        }
        Ok(())
    }

    fn check(&mut self) {
        // Descriptors of an honest driver name buffers below; others may place rings anywhere.
        if self.is_honest {
            let mut page = [0; 0x1000];
            self.memory.read_slice(&mut page, GuestAddress(UNTOUCHED)).unwrap();
            assert!(page.iter().all(|&byte| byte == 0));
        }
        let counts = self.transport.metrics().counts();
        assert_eq!(counts.interrupts, self.line.0.load(Ordering::Relaxed));
        assert_eq!(counts.failed_interrupts, 0);
        self.set_up();
        assert_eq!(self.transport.metrics().counts().resets, counts.resets + 1);
    }
}

/// A descriptor whose buffer may lie across the end of the buffers' page, at any length; the page that nothing names
/// is out of its reach.
#[derive(Debug, arbitrary::Arbitrary)]
struct Descriptor {
    offset: u16,
    len: u16,
    is_beyond: bool,
    flags: u8,
    next: u8,
}

impl Descriptor {
    fn bytes(&self) -> [u8; 16] {
        let address = if self.is_beyond {
            u64::MAX - u64::from(self.offset)
        } else {
            BUFFERS + u64::from(self.offset % 0x1000)
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&u32::from(self.len % 0x1000).to_le_bytes());
        bytes[12..14].copy_from_slice(&u16::from(self.flags & 3).to_le_bytes());
        bytes[14..].copy_from_slice(&u16::from(self.next % 20).to_le_bytes());
        bytes
    }
}
