use std::fs;
use std::sync::Condvar;
use std::thread;

use vm_memory::VolatileSlice;

use super::*;
use crate::virtio::block::flight::MAX_RUNNING;

/// Where requests wait until they are let through.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_open: bool,
    /// How many are in there, and how many have been.
    inside: usize,
    entered: usize,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.inside += 1;
        state.entered += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| !state.is_open).unwrap();
        state.inside -= 1;
    }

    fn set_open(&self, is_open: bool) {
        self.state.lock().unwrap().is_open = is_open;
        self.changed.notify_all();
    }

    fn wait_inside(&self, count: usize) {
        let state = self.state.lock().unwrap();
        let is_waiting = |state: &mut GateState| state.inside < count;
        let (state, timeout) =
            self.changed.wait_timeout_while(state, PATIENCE, is_waiting).unwrap();
        assert!(!timeout.timed_out(), "{} of {count} are inside", state.inside);
    }

    fn entered(&self) -> usize {
        self.state.lock().unwrap().entered
    }
}

/// Opens a gate when its test ends, failed or not: whatever is dropped after this waits for what is inside.
struct OpenAtEnd<'gate>(&'gate Gate);

impl Drop for OpenAtEnd<'_> {
    fn drop(&mut self) {
        self.0.set_open(true);
    }
}

/// Storage as slow as its gate.
struct Slow(Box<dyn Storage>, Arc<Gate>);

impl Storage for Slow {
    fn capacity_sectors(&self) -> u64 {
        self.0.capacity_sectors()
    }

    fn is_readonly(&self) -> bool {
        false
    }

    fn id(&self) -> [u8; 20] {
        self.0.id()
    }

    fn read_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        self.1.pass();
        self.0.read_at(buffers, offset)
    }

    fn write_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        self.1.pass();
        self.0.write_at(buffers, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> io::Result<()> {
        self.0.discard(offset, len_bytes)
    }

    fn write_zeroes(&self, offset: u64, len_bytes: u64, may_unmap: bool) -> io::Result<()> {
        self.0.write_zeroes(offset, len_bytes, may_unmap)
    }
}

fn slow(file: &NamedTempFile, gate: &Arc<Gate>) -> Box<dyn Storage> {
    Box::new(Slow(open(file, false), Arc::clone(gate)))
}

/// Makes requests available in slots of their own, which read the sectors of these numbers.
fn offer_reads(machine: &mut Machine, sectors: std::ops::Range<u64>) {
    for sector in sectors {
        let chain = machine.chain(sector, (IN, sector), &[], 512);
        machine.offer_chain(&chain);
    }
}

/// Whether the queue is looked into when it is processed: then the device asks for notifications again.
fn is_processed(machine: &Machine) -> bool {
    machine.put(&[1, 0], RINGS[2]);
    machine.process();
    machine.get(RINGS[2], 2) == [0, 0]
}

fn is_read(machine: &Machine, sector: u64) -> bool {
    machine.get(BUFFERS + sector * 0x2000 + 0x1000, 512) == [u8::try_from(sector).unwrap(); 512]
}

fn status(machine: &Machine, sector: u64) -> u8 {
    machine.get(BUFFERS + sector * 0x2000 + 16, 1)[0]
}

#[test]
fn many_requests_are_in_flight_and_whoever_processes_the_queue_waits_for_none() {
    let (file, gate) = (file(80), Arc::<Gate>::default());
    let mut machine = Machine::new(slow(&file, &gate));
    let _open_at_end = OpenAtEnd(&gate);
    offer_reads(&mut machine, 0..80);
    machine.process();
    gate.wait_inside(MAX_RUNNING);
    machine.process();
    assert_eq!((machine.seen(), gate.entered()), (vec![], MAX_RUNNING));
    gate.set_open(true);
    let mut heads: Vec<u32> = machine.wait_for(80).into_iter().map(|(head, _)| head).collect();
    heads.sort_unstable();
    heads.dedup();
    assert_eq!(heads.len(), 80);
    assert!((0..80).all(|sector| is_read(&machine, sector) && status(&machine, sector) == DONE));
    assert!(machine.interrupts() >= 1);
    assert_eq!(machine.counts().reads, 80);
}

#[test]
fn a_driver_that_offers_more_than_its_queue_holds_has_no_more_taken() {
    let (file, gate) = (file(2), Arc::<Gate>::default());
    let mut machine = Machine::new(slow(&file, &gate));
    let _open_at_end = OpenAtEnd(&gate);
    let chain = machine.chain(1, (IN, 1), &[], 512);
    let head = machine.offer_chain(&chain);
    // The same one over and over, as no honest driver does.
    for count in [127, 128, 128, 128] {
        (0..count).for_each(|_| machine.offer(head));
        machine.process();
    }
    assert_eq!(machine.seen(), []);
    assert!(!is_processed(&machine), "there is room for none");
    gate.set_open(true);
    // Those beyond are taken when there is room for them.
    assert_eq!(machine.wait_for(512).len(), 512);
}

#[test]
fn a_pause_waits_for_what_was_begun_and_keeps_what_was_taken() {
    let (file, gate) = (file(16), Arc::<Gate>::default());
    let mut machine = Machine::new(slow(&file, &gate));
    let _open_at_end = OpenAtEnd(&gate);
    offer_reads(&mut machine, 0..12);
    machine.process();
    gate.wait_inside(MAX_RUNNING);
    let transport = machine.transport.clone();
    let pause = thread::spawn(move || transport.set_paused(true));
    // Others reach the registers and the queue meanwhile: who waits holds no lock.
    while is_processed(&machine) {
        thread::yield_now();
    }
    assert!(machine.read(0x70) == 0xf && !pause.is_finished());
    gate.set_open(true);
    pause.join().unwrap();
    assert_eq!(gate.entered(), MAX_RUNNING, "a request was begun by a paused device");
    let before = machine.get(BUFFERS, 0x2_0000);
    machine.process();
    thread::sleep(Duration::from_millis(20));
    assert!(machine.seen().is_empty() && machine.get(BUFFERS, 0x2_0000) == before);
    machine.transport.set_paused(false);
    assert_eq!(machine.wait_for(12).len(), 12);
    assert!((0..12).all(|sector| is_read(&machine, sector)));
}

#[test]
fn a_reset_waits_for_what_was_begun_and_gives_up_what_was_not() {
    let (file, gate) = (file(16), Arc::<Gate>::default());
    let mut machine = Machine::new(slow(&file, &gate));
    let _open_at_end = OpenAtEnd(&gate);
    for sector in 0..12 {
        let chain = machine.chain(sector, (OUT, sector), &[0xff; 512], 0);
        machine.offer_chain(&chain);
    }
    machine.process();
    gate.wait_inside(MAX_RUNNING);
    let mut transport = machine.transport.clone();
    let reset = thread::spawn(move || transport.write(0x70, &0_u32.to_le_bytes()));
    // The event loop is not held up.
    while machine.read(0x70) != 0 {
        thread::yield_now();
    }
    assert_eq!(machine.transport.process_queue(0), Ok(false));
    assert!(!reset.is_finished());
    gate.set_open(true);
    reset.join().unwrap();
    let stored = fs::read(file.path()).unwrap();
    let memory = machine.get(0, MEMORY_BYTES);
    assert_eq!(stored.chunks(512).filter(|sector| sector[0] == 0xff).count(), MAX_RUNNING);
    thread::sleep(Duration::from_millis(20));
    assert!(fs::read(file.path()).unwrap() == stored && machine.get(0, MEMORY_BYTES) == memory);
    machine.agree(F_FLUSH);
    machine.process();
    assert_eq!(machine.seen(), [], "a request from before is handed back");
    assert_eq!(machine.request(IN, 0, &[], 512).1, DONE);
}

#[test]
fn the_end_waits_for_what_was_begun_and_keeps_neither_memory_nor_file() {
    let (file, gate) = (file(16), Arc::<Gate>::default());
    let mut machine = Machine::new(slow(&file, &gate));
    let _open_at_end = OpenAtEnd(&gate);
    offer_reads(&mut machine, 0..12);
    machine.process();
    gate.wait_inside(MAX_RUNNING);
    let transport = machine.transport.clone();
    let end = thread::spawn(move || transport.end());
    while is_processed(&machine) {
        thread::yield_now();
    }
    assert!(!end.is_finished());
    gate.set_open(true);
    end.join().unwrap();
    assert_eq!(gate.entered(), MAX_RUNNING);
    let region = machine.memory.find_region_arc();
    // Here, and in the machine.
    assert_eq!(Arc::strong_count(&region), 2);
    drop(open(&file, false));
    assert_eq!(machine.read(0x100), 16, "the registers are there still");
}

trait FindRegion {
    fn find_region_arc(&self) -> Arc<vm_memory::GuestRegionMmap<AtomicBitmap>>;
}

impl FindRegion for Memory {
    fn find_region_arc(&self) -> Arc<vm_memory::GuestRegionMmap<AtomicBitmap>> {
        let (rest, region) = self.remove_region(GuestAddress(0), MEMORY_BYTES as u64).unwrap();
        drop(rest);
        region
    }
}

#[test]
fn disks_that_hang_hold_no_other_up() {
    let workers = Arc::new(WorkerPool::new(|| ()));
    let gate = Arc::<Gate>::default();
    let hanging: Vec<(NamedTempFile, Machine)> = (0..8)
        .map(|_| {
            let file = file(16);
            let mut machine = Machine::with_workers(slow(&file, &gate), Arc::clone(&workers));
            offer_reads(&mut machine, 0..12);
            machine.process();
            (file, machine)
        })
        .collect();
    let _open_at_end = OpenAtEnd(&gate);
    gate.wait_inside(8);
    let file = file(16);
    let mut machine = Machine::with_workers(open(&file, false), Arc::clone(&workers));
    assert_eq!(machine.request(IN, 3, &[], 512), (513, DONE, [3; 512].to_vec()));
    gate.set_open(true);
    for (_file, mut machine) in hanging {
        assert_eq!(machine.wait_for(12).len(), 12);
    }
}

#[test]
fn a_long_request_is_given_up_half_way_when_the_device_is_reset() {
    let (file, gate) = (file(1), Arc::<Gate>::default());
    file.as_file().set_len(64 << 20).unwrap();
    let mut machine = Machine::new(slow(&file, &gate));
    let _open_at_end = OpenAtEnd(&gate);
    machine.put(&header(OUT, 0), BUFFERS);
    // The same MiB over and over: more than one call takes.
    let data = (BUFFERS + 0x1_0000, 1 << 20, false);
    let chain = [&[(BUFFERS, 16, false)][..], &[data; 40], &[(BUFFERS + 16, 1, true)]].concat();
    machine.offer_chain(&chain);
    machine.process();
    gate.wait_inside(1);
    let mut transport = machine.transport.clone();
    let reset = thread::spawn(move || transport.write(0x70, &0_u32.to_le_bytes()));
    while machine.read(0x70) != 0 {
        thread::yield_now();
    }
    gate.set_open(true);
    reset.join().unwrap();
    assert_eq!((gate.entered(), machine.counts().failed_requests), (1, 0));
}

/// Storage that panics.
struct Faulty(Box<dyn Storage>);

impl Storage for Faulty {
    fn capacity_sectors(&self) -> u64 {
        self.0.capacity_sectors()
    }

    fn is_readonly(&self) -> bool {
        false
    }

    fn id(&self) -> [u8; 20] {
        self.0.id()
    }

    fn read_at(&self, _buffers: &[VolatileSlice<'_>], _offset: u64) -> io::Result<usize> {
        panic!("a fault of the test's")
    }

    fn write_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        self.0.write_at(buffers, offset)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _offset: u64, _len_bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, _offset: u64, _len_bytes: u64, _may_unmap: bool) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_request_that_panics_is_handed_back_and_waited_for_by_nobody() {
    let file = file(16);
    let mut machine = Machine::new(Box::new(Faulty(open(&file, false))));
    assert_eq!(machine.request(IN, 0, &[], 512).1, NO_STATUS);
    assert_eq!(machine.request(FLUSH, 0, &[], 0).1, DONE);
    machine.set_up(F_FLUSH);
}
