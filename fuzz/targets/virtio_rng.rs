//! What a hostile driver does to an entropy source and its transport: registers in any order, rings and descriptors of
//! any bytes. Nothing panics or goes on for ever, only memory that a descriptor names as writable is written, what is
//! counted is what was done, and a reset makes the device usable again.

#![no_main]

mod driver;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pagefold_devices::virtio::MmioTransport;
use pagefold_devices::virtio::rng::Rng;
use pagefold_devices::{BusDevice, Interrupt};
use vm_memory::{Bytes, GuestAddress};

use driver::{Descriptor, Memory, RINGS};

/// A page behind the buffers, which nothing names.
const UNTOUCHED: u64 = 0x5000;
const MEMORY_BYTES: usize = 0x6000;

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
        driver::set_up(&mut machine.transport);
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

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=5)? {
            0 => {
                self.is_honest = false;
                let (register, value): (u16, u32) = input.arbitrary()?;
                driver::write(&mut self.transport, u64::from(register % 0x40) * 4, value);
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
                self.memory
                    .write_slice(&descriptor.bytes(0x1000, 0x1000, 3), GuestAddress(at))
                    .unwrap();
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
        driver::set_up(&mut self.transport);
        assert_eq!(self.transport.metrics().counts().resets, counts.resets + 1);
    }
}
