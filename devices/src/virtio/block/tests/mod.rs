mod broken_chains;
mod image;
mod in_flight;
mod model;
mod requests;

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::NamedTempFile;
use virtio_bindings::bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::split::Descriptor;
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Block, BlockCounts, BlockMetrics, RawImage, Storage};
use crate::virtio::{MmioTransport, QueueWaker, SharedTransport};
use crate::{BusDevice, Interrupt, WorkerPool};

pub(super) type Memory = GuestMemoryMmap<AtomicBitmap>;

pub(super) const IN: u32 = 0;
pub(super) const OUT: u32 = 1;
pub(super) const FLUSH: u32 = 4;
pub(super) const GET_ID: u32 = 8;
pub(super) const DISCARD: u32 = 11;
pub(super) const WRITE_ZEROES: u32 = 13;

pub(super) const DONE: u8 = 0;
pub(super) const FAILED: u8 = 1;
pub(super) const UNSUPPORTED: u8 = 2;
/// What a status is before there is one.
pub(super) const NO_STATUS: u8 = 0xee;

pub(super) const RINGS: [u64; 3] = [0, 0x1000, 0x2000];
pub(super) const QUEUE_SIZE: u16 = 256;
pub(super) const BUFFERS: u64 = 0x1_0000;
pub(super) const MEMORY_BYTES: usize = 4 << 20;
pub(super) const F_FLUSH: u32 = 1 << 9;

/// As long as a machine takes that has much else to do.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Default)]
pub(super) struct Line(AtomicU64);

impl Interrupt for Line {
    fn trigger(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

struct Waker(Mutex<Sender<()>>);

impl QueueWaker for Waker {
    fn wake(&self) {
        let _ = self.0.lock().unwrap().send(());
    }
}

/// A buffer of a request: address, length, and whether the device writes it.
pub(super) type Buffer = (u64, u32, bool);

/// What came of a request: its length in the used ring, its status, and the bytes that it was to fill.
pub(super) type Outcome = (u32, u8, Vec<u8>);

/// A device and its driver, which means well unless it is had do otherwise.
pub(super) struct Machine {
    pub(super) memory: Memory,
    pub(super) line: Arc<Line>,
    pub(super) transport: SharedTransport<Memory>,
    pub(super) metrics: Arc<BlockMetrics>,
    _workers: Arc<WorkerPool>,
    woken: Receiver<()>,
    next_descriptor: u16,
    available: u16,
    used: u16,
}

pub(super) fn workers() -> Arc<WorkerPool> {
    Arc::new(WorkerPool::new(|| ()))
}

/// A file of sectors, each with its number in every byte.
pub(super) fn file(sectors: u8) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    for number in 0..sectors {
        file.write_all(&[number; 512]).unwrap();
    }
    file
}

pub(super) fn open(file: &NamedTempFile, is_readonly: bool) -> Box<dyn Storage> {
    Box::new(RawImage::open(file.path(), is_readonly).unwrap())
}

impl Machine {
    pub(super) fn new(storage: Box<dyn Storage>) -> Self {
        Self::with_workers(storage, workers())
    }

    pub(super) fn with_workers(storage: Box<dyn Storage>, workers: Arc<WorkerPool>) -> Self {
        let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap();
        let (sender, woken) = channel();
        let waker = Arc::new(Waker(Mutex::new(sender)));
        let device = Block::new(storage, &workers, waker);
        let metrics = device.metrics();
        let line = Arc::<Line>::default();
        let interrupt = Box::new(Arc::clone(&line));
        let transport = MmioTransport::new(Box::new(device), memory.clone(), interrupt);
        let transport = SharedTransport::new(transport);
        let mut this = Self {
            memory,
            line,
            transport,
            metrics,
            _workers: workers,
            woken,
            next_descriptor: 0,
            available: 0,
            used: 0,
        };
        this.set_up(F_FLUSH);
        this
    }

    pub(super) fn write(&mut self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    pub(super) fn read(&mut self, register: u64) -> u32 {
        let mut data = [0xff; 4];
        self.transport.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    /// Resets the device, and agrees on these features.
    pub(super) fn set_up(&mut self, features: u32) {
        self.write(0x70, 0);
        self.agree(features);
    }

    /// Agrees with a device that has been reset on these features, with rings that are empty.
    pub(super) fn agree(&mut self, features: u32) {
        assert_eq!(self.read(0x70), 0);
        self.memory.write_slice(&[0; 0x3000], GuestAddress(0)).unwrap();
        (self.next_descriptor, self.available, self.used) = (0, 0, 0);
        self.write(0x70, 3);
        for (select, word) in [(0, features), (1, 1)] {
            self.write(0x24, select);
            self.write(0x20, word);
        }
        self.write(0x70, 0xb);
        self.write(0x30, 0);
        self.write(0x38, QUEUE_SIZE.into());
        for (register, address) in [0x80, 0x90, 0xa0].into_iter().zip(RINGS) {
            self.write(register, u32::try_from(address).unwrap());
            self.write(register + 4, 0);
        }
        self.write(0x44, 1);
        self.write(0x70, 0xf);
        assert_eq!(self.read(0x70), 0xf);
    }

    pub(super) fn counts(&self) -> BlockCounts {
        self.metrics.counts()
    }

    pub(super) fn interrupts(&self) -> u64 {
        self.line.0.load(Ordering::Relaxed)
    }

    pub(super) fn put(&self, bytes: &[u8], at: u64) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub(super) fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    /// Makes a descriptor, at an index that goes round.
    pub(super) fn describe(
        &mut self,
        (address, len, is_written): Buffer,
        next: Option<u16>,
    ) -> u16 {
        let written = if is_written { VRING_DESC_F_WRITE } else { 0 };
        let chained = if next.is_some() { VRING_DESC_F_NEXT } else { 0 };
        let flags = u16::try_from(written | chained).unwrap();
        let index = self.next_descriptor;
        let descriptor = Descriptor::new(address, len, flags, next.unwrap_or(0));
        let at = RINGS[0] + 16 * u64::from(index);
        self.memory.write_obj(descriptor, GuestAddress(at)).unwrap();
        self.next_descriptor = (index + 1) % QUEUE_SIZE;
        index
    }

    /// Makes the request available that begins with descriptor `head`.
    pub(super) fn offer(&mut self, head: u16) {
        let at = RINGS[1] + 4 + 2 * u64::from(self.available % QUEUE_SIZE);
        self.memory.write_obj(head, GuestAddress(at)).unwrap();
        self.available = self.available.wrapping_add(1);
        self.memory.write_obj(self.available, GuestAddress(RINGS[1] + 2)).unwrap();
    }

    /// Makes a request of these buffers available, and returns its head.
    pub(super) fn offer_chain(&mut self, buffers: &[Buffer]) -> u16 {
        let mut next = None;
        for &buffer in buffers.iter().rev() {
            next = Some(self.describe(buffer, next));
        }
        let head = next.unwrap();
        self.offer(head);
        head
    }

    pub(super) fn process(&self) {
        while self.transport.process_queue(0).unwrap() {}
    }

    /// What is in the used ring and was not seen yet: heads and lengths.
    pub(super) fn seen(&mut self) -> Vec<(u32, u32)> {
        let end: u16 = self.memory.read_obj(GuestAddress(RINGS[2] + 2)).unwrap();
        let mut seen = Vec::new();
        while self.used != end {
            let at = RINGS[2] + 4 + 8 * u64::from(self.used % QUEUE_SIZE);
            let head = self.memory.read_obj(GuestAddress(at)).unwrap();
            seen.push((head, self.memory.read_obj(GuestAddress(at + 4)).unwrap()));
            self.used = self.used.wrapping_add(1);
        }
        seen
    }

    /// Waits, as the event loop does, until so many more requests are done.
    pub(super) fn wait_for(&mut self, count: usize) -> Vec<(u32, u32)> {
        self.process();
        let mut seen = self.seen();
        while seen.len() < count {
            self.woken.recv_timeout(PATIENCE).expect("the device makes itself heard");
            self.process();
            seen.extend(self.seen());
        }
        seen
    }

    /// Makes one request of these buffers, and waits for it; returns its length in the used ring.
    pub(super) fn carry_out(&mut self, buffers: &[Buffer]) -> u32 {
        let head = self.offer_chain(buffers);
        let seen = self.wait_for(1);
        assert_eq!((seen.len(), seen[0].0), (1, head.into()));
        seen[0].1
    }

    /// Makes one request as drivers do, and waits for it.
    pub(super) fn request(&mut self, kind: u32, sector: u64, sent: &[u8], fill: usize) -> Outcome {
        let chain = self.chain(0, (kind, sector), sent, fill);
        let len = self.carry_out(&chain);
        let [.., (status, _, _)] = chain[..] else { unreachable!("it has a status") };
        let filled = self.get(BUFFERS + 0x1000, fill);
        (len, self.get(status, 1)[0], filled)
    }

    /// Puts a request into slot `slot` of memory, 8 KiB each, as drivers do: what is sent and what is filled begins
    /// 4096 bytes into it.
    pub(super) fn chain(
        &self,
        slot: u64,
        (kind, sector): (u32, u64),
        sent: &[u8],
        fill: usize,
    ) -> Vec<Buffer> {
        let start = BUFFERS + slot * 0x2000;
        let (data, status) = (start + 0x1000, start + 16);
        self.put(&header(kind, sector), start);
        self.put(sent, data);
        self.put(&[NO_STATUS], status);
        let mut chain = vec![(start, 16, false)];
        if !sent.is_empty() {
            chain.push((data, u32::try_from(sent.len()).unwrap(), false));
        }
        if fill > 0 {
            chain.push((data, u32::try_from(fill).unwrap(), true));
        }
        chain.push((status, 1, true));
        chain
    }
}

pub(super) fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

/// A range as requests for discards and zeroes have it.
pub(super) fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}
