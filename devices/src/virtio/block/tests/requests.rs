use std::fs;
use std::os::unix::fs::MetadataExt;

use vm_memory::GuestMemoryBackend;
use vm_memory::bitmap::Bitmap;

use vm_memory::VolatileSlice;

use super::*;

#[test]
fn sectors_are_read_into_every_buffer_and_marked_as_written() {
    let file = file(16);
    let mut machine = Machine::new(open(&file, false));
    let start = BUFFERS + 0x8000;
    machine.put(&header(IN, 3), BUFFERS);
    (**machine.memory.iter().next().unwrap()).bitmap().reset();
    // The header in two parts, data in three across sectors, and the status behind the last of them.
    let chain = [
        (BUFFERS, 7, false),
        (BUFFERS + 7, 9, false),
        (start, 100, true),
        (start + 0x1000, 412, true),
        (start + 0x2000, 1025, true),
    ];
    assert_eq!(machine.carry_out(&chain), 1537);
    assert_eq!(machine.get(start, 101), [vec![3; 100], vec![0]].concat());
    assert_eq!(machine.get(start + 0x1000, 412), [3; 412]);
    let last = [vec![4; 512], vec![5; 512], vec![DONE], vec![0]].concat();
    assert_eq!(machine.get(start + 0x2000, 1026), last);
    let bitmap = (**machine.memory.iter().next().unwrap()).bitmap().clone();
    let is_marked = |page: usize| bitmap.dirty_at(page << 12);
    let first = usize::try_from(start >> 12).unwrap();
    assert_eq!([0, 1, 2, 3].map(|page| is_marked(first + page)), [true, true, true, false]);
    let counts = machine.counts();
    assert_eq!((counts.reads, counts.read_bytes, counts.refused_requests), (1, 1536, 0));
    assert_eq!(machine.interrupts(), 1);
}

#[test]
fn what_is_written_is_in_the_file_and_nowhere_else() {
    let file = file(8);
    let mut machine = Machine::new(open(&file, false));
    let bytes: Vec<u8> = (0..1024_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    assert_eq!(machine.request(OUT, 2, &bytes, 0), (1, DONE, vec![]));
    let stored = fs::read(file.path()).unwrap();
    assert_eq!(stored[1024..2048], bytes);
    assert_eq!((stored[1023], stored[2048], stored.len()), (1, 4, 4096));
    assert_eq!(machine.request(IN, 2, &[], 1024), (1025, DONE, bytes));
    assert_eq!(machine.request(FLUSH, 0, &[], 0), (1, DONE, vec![]));
    let counts = machine.counts();
    assert_eq!((counts.writes, counts.written_bytes, counts.flushes), (1, 1024, 1));
}

#[test]
fn a_disk_is_identified_by_its_files_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root disk");
    fs::write(&path, [0; 512]).unwrap();
    let mut machine = Machine::new(Box::new(RawImage::open(&path, true).unwrap()));
    let (len, status, id) = machine.request(GET_ID, 0, &[], 20);
    assert_eq!((len, status, &id[..]), (21, DONE, &b"root_disk\0\0\0\0\0\0\0\0\0\0\0"[..]));
    assert_eq!(machine.request(GET_ID, 0, &[], 10).1, FAILED);
}

#[test]
fn discarded_sectors_take_no_space_and_zeroes_read_as_such() {
    let file = file(64);
    let mut machine = Machine::new(open(&file, false));
    let before = file.path().metadata().unwrap().blocks();
    let ranges = [range(8, 8, 0), range(0, 0, 0), range(24, 8, 0)].concat();
    assert_eq!(machine.request(DISCARD, 0, &ranges, 0), (1, DONE, vec![]));
    for (first, flags) in [(40, 0), (50, 1)] {
        assert_eq!(machine.request(WRITE_ZEROES, 0, &range(first, 3, flags), 0).1, DONE);
    }
    let stored = fs::read(file.path()).unwrap();
    for (sector, bytes) in stored.chunks(512).enumerate() {
        let is_zero = [8..16, 24..32, 40..43, 50..53].iter().any(|range| range.contains(&sector));
        let byte = if is_zero { 0 } else { u8::try_from(sector).unwrap() };
        assert!(bytes.iter().all(|&found| found == byte), "{sector}: {}", bytes[0]);
    }
    assert_eq!(stored.len(), 64 * 512);
    assert!(file.path().metadata().unwrap().blocks() < before);
    let counts = machine.counts();
    assert_eq!((counts.discards, counts.zeroes, counts.refused_requests), (1, 2, 0));
}

#[test]
fn a_driver_reads_size_limits_and_features() {
    let (file, other) = (file(16), file(16));
    for (storage, is_readonly) in [(open(&file, false), false), (open(&other, true), true)] {
        let mut machine = Machine::new(storage);
        let config = [0x100, 0x104, 0x10c, 0x114, 0x118, 0x11c].map(|at| machine.read(at));
        assert_eq!(config, [16, 0, 254, 512, 3 | 8 << 16, 0]);
        let limits = [0x124, 0x128, 0x12c, 0x130, 0x134, 0x138].map(|at| machine.read(at));
        let expected = if is_readonly { [0; 6] } else { [1 << 22, 16, 8, 1 << 16, 1, 1] };
        assert_eq!(limits, expected);
        assert_eq!(machine.read(0x13c), u32::MAX, "behind the configuration");
        machine.write(0x14, 0);
        let offered = machine.read(0x10);
        let for_all = 1 << 2 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 28 | 1 << 29;
        let own = if is_readonly { 1 << 5 } else { 1 << 13 | 1 << 14 };
        assert_eq!(offered, for_all | own);
    }
}

/// Storage that counts flushes.
struct Flushed(Box<dyn Storage>, Arc<AtomicU64>);

impl Storage for Flushed {
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
        self.0.read_at(buffers, offset)
    }

    fn write_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        self.0.write_at(buffers, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.flush()
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> io::Result<()> {
        self.0.discard(offset, len_bytes)
    }

    fn write_zeroes(&self, offset: u64, len_bytes: u64, may_unmap: bool) -> io::Result<()> {
        self.0.write_zeroes(offset, len_bytes, may_unmap)
    }
}

#[test]
fn a_driver_that_cannot_flush_has_each_write_flushed() {
    let file = file(16);
    let flushes = Arc::<AtomicU64>::default();
    let mut machine = Machine::new(Box::new(Flushed(open(&file, false), Arc::clone(&flushes))));
    machine.request(OUT, 0, &[1; 512], 0);
    assert_eq!(flushes.load(Ordering::Relaxed), 0);
    machine.set_up(0);
    machine.request(OUT, 0, &[1; 512], 0);
    machine.request(WRITE_ZEROES, 0, &range(1, 1, 0), 0);
    machine.request(DISCARD, 0, &range(8, 8, 0), 0);
    machine.request(IN, 0, &[], 512);
    assert_eq!(flushes.load(Ordering::Relaxed), 3);
}

/// Storage to and from which the kernel moves few bytes at a time, with interruptions, and to some buffers none at all.
struct Hesitant(Box<dyn Storage>, AtomicU64);

impl Hesitant {
    fn move_some<'memory>(
        &self,
        buffers: &[VolatileSlice<'memory>],
        go: impl FnOnce(&[VolatileSlice<'memory>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match self.1.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => Err(io::Error::from_raw_os_error(libc::EINTR)),
            1 => Err(io::Error::from_raw_os_error(libc::EFAULT)),
            _ => go(&[buffers[0].subslice(0, buffers[0].len().min(100)).unwrap()]),
        }
    }
}

impl Storage for Hesitant {
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
        self.move_some(buffers, |buffers| self.0.read_at(buffers, offset))
    }

    fn write_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        self.move_some(buffers, |buffers| self.0.write_at(buffers, offset))
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn discard(&self, _offset: u64, _len_bytes: u64) -> io::Result<()> {
        Err(io::Error::other("broken"))
    }

    fn write_zeroes(&self, _offset: u64, _len_bytes: u64, _may_unmap: bool) -> io::Result<()> {
        Err(io::Error::other("broken"))
    }
}

#[test]
fn short_interrupted_and_faulting_transfers_are_gone_on_with() {
    let file = file(16);
    let storage = Hesitant(open(&file, false), AtomicU64::new(0));
    let mut machine = Machine::new(Box::new(storage));
    let bytes: Vec<u8> = (0..1536_u32).map(|at| u8::try_from(at % 241).unwrap()).collect();
    assert_eq!(machine.request(OUT, 1, &bytes, 0), (1, DONE, vec![]));
    let (len, status, filled) = machine.request(IN, 0, &[], 2560);
    assert_eq!((len, status), (2561, DONE));
    assert_eq!(filled, [vec![0; 512], bytes, vec![4; 512]].concat());
}

#[test]
fn errors_of_the_medium_reach_the_driver_and_count_as_failed() {
    let file = file(16);
    let storage = Hesitant(open(&file, false), AtomicU64::new(0));
    let mut machine = Machine::new(Box::new(storage));
    assert_eq!(machine.request(DISCARD, 0, &range(0, 8, 0), 0).1, FAILED);
    assert_eq!(machine.request(WRITE_ZEROES, 0, &range(0, 8, 0), 0).1, FAILED);
    // Cut short behind the device's back.
    file.as_file().set_len(5 * 512).unwrap();
    let (len, status, filled) = machine.request(IN, 4, &[], 1024);
    assert_eq!((len, status, &filled[..512]), (512, FAILED, &[4; 512][..]));
    let counts = machine.counts();
    assert_eq!((counts.failed_requests, counts.refused_requests, counts.reads), (3, 0, 0));
}
