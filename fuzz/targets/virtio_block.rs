//! What a hostile driver does to a disk: requests of any bytes in chains of any shape, resets and pauses in between.
//! Nothing panics or waits for ever, only memory that a descriptor names as writable is written, a disk to be read
//! only stays as it is and another as long as it is, what is counted is what was done, and after a reset the device is usable
//! again and nothing is in flight.

#![no_main]

mod driver;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pagefold_devices::virtio::block::{Block, BlockMetrics, RawImage};
use pagefold_devices::virtio::{MmioTransport, QueueWaker};
use pagefold_devices::{NoInterrupt, WorkerPool};
use rustix::fs::MemfdFlags;
use vm_memory::{Bytes, GuestAddress};

use driver::{BUFFERS, Descriptor, Memory, QUEUE_SIZE, RINGS};

/// A page behind the buffers, which nothing names.
const UNTOUCHED: u64 = 0x6000;
const MEMORY_BYTES: usize = 0x7000;

const SECTORS: usize = 16;
const DISK_BYTES: usize = SECTORS * 512;
/// What a disk is full of at first.
const BYTE: u8 = 0xa5;

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let is_readonly = input.arbitrary().unwrap_or(false);
    let mut machine = Machine::new(is_readonly);
    machine.set_up();
    while !input.is_empty() && machine.step(&mut input).is_ok() {}
    machine.check();
});

/// Counts what is handed back.
#[derive(Default)]
struct Waker {
    wakes: Mutex<u64>,
    woken: Condvar,
}

impl QueueWaker for Waker {
    fn wake(&self) {
        *self.wakes.lock().unwrap() += 1;
        self.woken.notify_all();
    }
}

impl Waker {
    /// Waits until it was called more than `seen` times; returns how often it was. The fuzzer's own timeout finds that it
    /// never is.
    fn wait(&self, seen: u64) -> u64 {
        let wakes = self.wakes.lock().unwrap();
        *self.woken.wait_while(wakes, |wakes| *wakes == seen).unwrap()
    }
}

/// Threads that live as long as the fuzzer.
fn workers() -> &'static Arc<WorkerPool> {
    static WORKERS: OnceLock<Arc<WorkerPool>> = OnceLock::new();
    WORKERS.get_or_init(|| Arc::new(WorkerPool::new(|| ())))
}

/// A file in memory, and where it can be opened once more.
fn disk() -> io::Result<(File, PathBuf)> {
    let file = File::from(rustix::fs::memfd_create("disk", MemfdFlags::CLOEXEC)?);
    file.write_all_at(&[BYTE; DISK_BYTES], 0)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    Ok((file, path))
}

struct Machine {
    memory: Memory,
    transport: MmioTransport<Memory>,
    metrics: Arc<BlockMetrics>,
    waker: Arc<Waker>,
    seen: u64,
    file: File,
    is_readonly: bool,
    /// Whether a table of descriptors may lie where the device writes.
    is_indirect: bool,
    offered: u16,
}

impl Machine {
    fn new(is_readonly: bool) -> Self {
        let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap();
        let (file, path) = disk().unwrap();
        let image = Box::new(RawImage::open(&path, is_readonly).unwrap());
        let waker = Arc::<Waker>::default();
        let device = Block::new(image, workers(), Arc::clone(&waker) as Arc<dyn QueueWaker>);
        let metrics = device.metrics();
        let transport = MmioTransport::new(Box::new(device), memory.clone(), Box::new(NoInterrupt));
        Self {
            memory,
            transport,
            metrics,
            waker,
            seen: 0,
            file,
            is_readonly,
            is_indirect: false,
            offered: 0,
        }
    }

    /// As a driver does that means well, with rings that are empty.
    fn set_up(&mut self) {
        driver::set_up(&mut self.transport);
        for ring in &RINGS[1..] {
            self.memory.write_slice(&[0; 4], GuestAddress(*ring)).unwrap();
        }
        self.offered = 0;
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=7)? {
            0 | 1 => {
                let (index, descriptor): (u8, Descriptor) = input.arbitrary()?;
                let at = RINGS[0] + 16 * u64::from(index % 16);
                self.is_indirect |= descriptor.flags & 4 != 0;
                self.memory
                    .write_slice(&descriptor.bytes(0x1800, 0x1801, 7), GuestAddress(at))
                    .unwrap();
            }
            2 => {
                let (at, header): (u8, Header) = input.arbitrary()?;
                let at = BUFFERS + 16 * u64::from(at);
                self.memory.write_slice(&header.bytes(), GuestAddress(at)).unwrap();
            }
            3 | 4 => {
                let head: u8 = input.arbitrary()?;
                let at = RINGS[1] + 4 + 2 * u64::from(self.offered % QUEUE_SIZE);
                let head = u16::from(head % 18);
                self.memory.write_slice(&head.to_le_bytes(), GuestAddress(at)).unwrap();
                self.offered = self.offered.wrapping_add(1);
                let offered = self.offered.to_le_bytes();
                self.memory.write_slice(&offered, GuestAddress(RINGS[1] + 2)).unwrap();
            }
            5 => _ = self.transport.process_queue(0),
            6 => {
                self.transport.set_paused(true);
                self.transport.set_paused(false);
            }
            _ => self.set_up(),
        }
        Ok(())
    }

    /// Requests of the end of it all, none of which is lost.
    fn check(&mut self) {
        self.set_up();
        let before = self.metrics.counts();
        self.memory.write_slice(&[0; 0x2000], GuestAddress(BUFFERS)).unwrap();
        // Two descriptors: a header that asks for a read of the first sector, and where it belongs.
        let header = [BUFFERS.to_le_bytes(), 0x0001_0001_0000_0010_u64.to_le_bytes()].concat();
        let data = [(BUFFERS + 0x1000).to_le_bytes(), 0x0000_0002_0000_0201_u64.to_le_bytes()];
        let table = [header, data.concat()].concat();
        self.memory.write_slice(&table, GuestAddress(RINGS[0])).unwrap();
        let used = |memory: &Memory| memory.read_obj::<u16>(GuestAddress(RINGS[2] + 2)).unwrap();
        let first = used(&self.memory);
        let ring = [0_u16, 1, 0].map(u16::to_le_bytes).concat();
        self.memory.write_slice(&ring, GuestAddress(RINGS[1])).unwrap();
        self.transport.process_queue(0).unwrap();
        while used(&self.memory) == first {
            self.seen = self.waker.wait(self.seen);
            self.transport.process_queue(0).unwrap();
        }
        assert_eq!(self.metrics.counts().reads, before.reads + 1);
        self.transport.end();

        let mut page = [0; 0x1000];
        self.memory.read_slice(&mut page, GuestAddress(UNTOUCHED)).unwrap();
        assert!(self.is_indirect || page.iter().all(|&byte| byte == 0));
        assert_eq!(self.file.metadata().unwrap().len(), DISK_BYTES as u64);
        let mut disk = [0; DISK_BYTES];
        self.file.read_exact_at(&mut disk, 0).unwrap();
        let counts = self.metrics.counts();
        assert_eq!(counts.failed_requests, 0);
        if self.is_readonly || counts.writes + counts.discards + counts.zeroes == 0 {
            assert_eq!(disk, [BYTE; DISK_BYTES]);
        }
    }
}

/// What a request begins with, or a range of one.
#[derive(Debug, arbitrary::Arbitrary)]
struct Header {
    kind: u8,
    word: u8,
    sector: u8,
    is_far: bool,
}

impl Header {
    fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0] = self.kind % 16;
        bytes[4] = self.word % 4;
        bytes[8] = self.sector % 20;
        bytes[15] = u8::from(self.is_far);
        bytes
    }
}
