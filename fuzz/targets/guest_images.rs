//! Files of strangers: an ELF image to be loaded, or memory images to be analyzed. Each is refused with a
//! reason or understood, and what was understood is what a reader finds who goes byte by byte.
//!
//! The sources that read them are private to their crates, and are compiled in from where they are.

#![no_main]

#[path = "../../vmm/cli/src/analyze/census.rs"]
mod census;
#[path = "../../vmm/src/loader/image.rs"]
mod elf;
#[path = "../../vmm/cli/src/analyze/extents.rs"]
mod extents;
#[path = "../../vmm/cli/src/analyze/image.rs"]
mod image;
#[allow(dead_code, reason = "folding has uses of its own for keys")]
#[path = "../../vmm/cli/src/analyze/keys.rs"]
mod keys;

/// Where the loader finds its memory.
mod memory {
    pub use pagefold::memory::GuestRam;
}

/// Counts what has been read; the command shows it on a terminal.
mod progress {
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Debug, Default)]
    pub struct Progress(AtomicU64);

    impl Progress {
        pub fn add(&self, bytes: u64) {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }

        pub fn bytes(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }
}

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pagefold_dedup::PAGE_SIZE;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use vm_memory::{Bytes, GuestAddress};

use census::Census;
use image::{Image, ImageError, Part};
use memory::GuestRam;
use progress::Progress;

fuzz_target!(
    init: {
        // All in this thread: what happens depends on the input alone.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
        pool.build_global().expect("the only pool");
    },
    |data: &[u8]| {
        if data.first() == Some(&0x7f) {
            load(data);
        } else {
            let _ = analyze(&mut Unstructured::new(data));
        }
    }
);

/// Sizes of the memory that an ELF image is loaded into, chosen by a byte of its header that means nothing.
/// The last reaches over the hole below 4 GiB.
const MEMORY_PAGES: [u64; 4] = [16, 1, 1024, (3 << 18) + 1];

fn load(file: &[u8]) {
    let size = file.get(15).map_or(0, |&byte| usize::from(byte) % MEMORY_PAGES.len());
    let memory_bytes = MEMORY_PAGES[size] * PAGE_SIZE as u64;
    let ram = GuestRam::new(memory_bytes).expect("memory of a VM");
    let loaded = elf::load_elf(&ram, file);
    let Some(segments) = segments(file) else {
        explain(&loaded.expect_err("headers that contradict themselves"));
        return;
    };
    let expected = GuestRam::new(memory_bytes).expect("memory of a VM");
    let mut fits = true;
    for segment in segments.iter().filter(|segment| segment.is_loaded()) {
        let address = GuestAddress(segment.address);
        let bytes = segment.bytes(file);
        fits &= segment.address.checked_add(segment.memory_bytes).is_some()
            && bytes.is_some_and(|bytes| expected.memory().write_slice(bytes, address).is_ok());
    }
    let entry = match loaded {
        Ok(entry) => entry,
        Err(error) => {
            // Notes may be wrong, too.
            assert!(!fits || segments.iter().any(Segment::is_note), "refused: {error:?}");
            return explain(&error);
        }
    };
    assert!(fits, "what does not fit was loaded");
    assert_eq!(Some(entry.0), number(file, 24, 8), "the entry point");
    let read = |ram: &GuestRam, address, len_bytes: u64| {
        let mut bytes = vec![0; len_bytes as usize];
        ram.memory().read_slice(&mut bytes, GuestAddress(address)).expect("memory");
        bytes
    };
    if size == 0 {
        // All of it: nothing else was written.
        assert!(read(&ram, 0, memory_bytes) == read(&expected, 0, memory_bytes));
    }
    for segment in segments.iter().filter(|segment| segment.is_loaded()) {
        let (address, len_bytes) = (segment.address, segment.file_bytes);
        assert_eq!(read(&ram, address, len_bytes), read(&expected, address, len_bytes));
    }
}

/// A program header.
struct Segment {
    kind: u64,
    offset_bytes: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
}

impl Segment {
    fn is_loaded(&self) -> bool {
        self.kind == 1 && self.file_bytes > 0
    }

    fn is_note(&self) -> bool {
        self.kind == 4
    }

    fn bytes<'file>(&self, file: &'file [u8]) -> Option<&'file [u8]> {
        let first = usize::try_from(self.offset_bytes).ok()?;
        file.get(first..first.checked_add(self.file_bytes.try_into().ok()?)?)
    }
}

/// The program headers of an ELF image for x86-64 (gABI, "Program Header"), if it has all that it should.
fn segments(file: &[u8]) -> Option<Vec<Segment>> {
    let first = number(file, 32, 8)?;
    let is_elf = file.starts_with(b"\x7fELF\x02\x01") && number(file, 18, 2)? == 62;
    if file.len() < 64 || !is_elf || number(file, 54, 2)? != 56 || first < 64 {
        return None;
    }
    (0..number(file, 56, 2)?)
        .map(|index| {
            let header = usize::try_from(first.checked_add(index * 56)?).ok()?;
            let field = |offset, len| number(file, header.checked_add(offset)?, len);
            Some(Segment {
                kind: field(0, 4)?,
                offset_bytes: field(8, 8)?,
                address: field(24, 8)?,
                file_bytes: field(32, 8)?,
                memory_bytes: field(40, 8)?,
            })
            // The header may be cut short in its last field.
            .filter(|_| field(48, 8).is_some())
        })
        .collect()
}

/// A little-endian number in a file.
fn number(file: &[u8], offset: usize, len: usize) -> Option<u64> {
    let bytes = file.get(offset..offset.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// An error can be printed with all its causes.
fn explain(error: &dyn Error) {
    assert!(!error.to_string().is_empty());
    if let Some(cause) = error.source() {
        explain(cause);
    }
}

/// A file of pages that are zeroes but for their last bytes, and what it should hold.
struct Dump {
    file: File,
    len_bytes: u64,
    /// The last byte of each page that the file holds.
    data: BTreeMap<u32, u8>,
}

fn analyze(input: &mut Unstructured<'_>) -> Result<()> {
    let (mut dumps, mut images) = (Vec::new(), Vec::new());
    for _ in 0..input.int_in_range(1..=3)? {
        let mut dump = Dump::new(input)?;
        for _ in 0..input.int_in_range(0..=6)? {
            dump.change(input)?;
        }
        if let Some(image) = dump.open() {
            dumps.push(dump);
            images.push(image);
        }
    }
    let is_long = |image: &Image| image.page_count() > LONG_PAGES;
    if images.is_empty() || images.iter().any(is_long) {
        return Ok(());
    }
    // Whoever writes them need not have finished.
    let mut is_cut = false;
    for (dump, image) in dumps.iter_mut().zip(&images) {
        match input.int_in_range(0..=7).unwrap_or(0) {
            0..=4 => {}
            5 => dump.change(input)?,
            6 => is_cut |= dump.cut(image.page_count(), input)?,
            _ => {
                cut_while_read(dump, image, input.arbitrary()?);
                return Ok(());
            }
        }
    }
    let progress = Progress::default();
    match census::take(&images, &progress) {
        Ok(census) => {
            assert!(!is_cut, "what is gone was taken for holes");
            let pages: u64 = images.iter().map(|image| u64::from(image.page_count())).sum();
            assert_eq!(progress.bytes(), pages * PAGE_SIZE as u64);
            check(&census, &dumps, &images);
        }
        Err(error) => {
            let is_why = matches!(error, ImageError::Read { .. } | ImageError::Shrunk { .. });
            assert!(is_cut && is_why, "{error}");
            explain(&error);
        }
    }
    Ok(())
}

/// Longer images have nothing but more holes, which take their time.
const LONG_PAGES: u32 = 1 << 16;

impl Dump {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let file = File::from(memfd_create("dump", MemfdFlags::CLOEXEC).expect("a file"));
        let page_bytes = PAGE_SIZE as u64;
        let wanted_bytes = match input.int_in_range(0..=15)? {
            0..=9 => input.int_in_range(0..=40)? * page_bytes,
            // About as many as are read at once.
            10..=11 => input.int_in_range(255..=514)? * page_bytes,
            // About as many as there are in a part of a hole.
            12..=13 => input.int_in_range(32_760..=32_780)? * page_bytes,
            14 => (u64::from(u32::MAX) + input.int_in_range(0..=2)?) * page_bytes,
            _ => input.arbitrary()?,
        };
        // The kernel has no longer ones.
        let len_bytes = if file.set_len(wanted_bytes).is_ok() { wanted_bytes } else { 0 };
        Ok(Self { file, len_bytes, data: BTreeMap::new() })
    }

    /// Writes pages, or makes a hole of them.
    fn change(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let pages = u32::try_from(self.len_bytes / PAGE_SIZE as u64).unwrap_or(u32::MAX);
        if pages == 0 {
            return Ok(());
        }
        let near = input.int_in_range(0..=63)?.min(pages - 1);
        let first = if input.arbitrary()? { near } else { pages - 1 - near };
        // More than are read at once, or a few.
        let most = if input.ratio(1, 64)? { 257 } else { input.int_in_range(1..=16)? };
        let end = first.saturating_add(most).min(pages);
        let content = input.int_in_range(0..=7)?;
        if content == 7 {
            let (offset, len) = (offset(first), offset(end) - offset(first));
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&self.file, punch, offset, len).expect("a hole");
            self.data.retain(|page, _| !(first..end).contains(page));
        } else {
            let page = page(content);
            for number in first..end {
                self.file.write_all_at(&page, offset(number)).expect("written");
                self.data.insert(number, content);
            }
        }
        Ok(())
    }

    /// Opens it as an image, if it is one.
    fn open(&self) -> Option<Image> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        let pages = self.len_bytes / PAGE_SIZE as u64;
        match Image::open(&path) {
            Ok(image) => {
                assert!(self.len_bytes == offset(image.page_count()) && self.len_bytes > 0);
                assert_eq!(image.data_page_count() as usize, self.data.len());
                Some(image)
            }
            Err(error) => {
                match error {
                    ImageError::Empty { .. } => assert_eq!(self.len_bytes, 0),
                    ImageError::NotPages { .. } => {
                        assert_ne!(self.len_bytes % PAGE_SIZE as u64, 0);
                    }
                    ImageError::TooLarge { .. } => assert!(pages > u32::MAX.into()),
                    _ => panic!("{error}"),
                }
                assert!(!error.advice().is_empty());
                explain(&error);
                None
            }
        }
    }

    /// Makes it shorter than `pages`, or longer, and returns whether it is shorter.
    fn cut(&mut self, pages: u32, input: &mut Unstructured<'_>) -> Result<bool> {
        let mut len_bytes = u64::from(input.arbitrary::<u32>()?) % (offset(pages) + 2);
        if input.arbitrary()? {
            len_bytes -= len_bytes % PAGE_SIZE as u64;
        }
        self.file.set_len(len_bytes).expect("a length");
        self.len_bytes = len_bytes;
        self.data.retain(|&page, _| offset(page) < len_bytes);
        Ok(len_bytes < offset(pages))
    }
}

/// An image that is made shorter between two of its parts.
fn cut_while_read(dump: &Dump, image: &Image, at: u32) {
    let len_bytes = u64::from(at) % (offset(image.page_count()) + 1);
    let parts = image.map_parts(&Progress::default(), |part| {
        dump.file.set_len(len_bytes).expect("a length");
        match part {
            Part::Data(first, bytes) => (first, (bytes.len() / PAGE_SIZE) as u32),
            Part::Hole(first, pages) => (first, pages),
        }
    });
    match parts {
        Ok(parts) => {
            let end = parts.iter().fold(0, |end, &(first, pages)| {
                assert_eq!(first, end, "pages are missing");
                end + pages
            });
            assert_eq!(end, image.page_count());
        }
        Err(error) => assert!(matches!(error, ImageError::Read { .. }), "{error}"),
    }
}

/// Counts page by page.
fn check(census: &Census, dumps: &[Dump], images: &[Image]) {
    let mut copies = [0_u64; 8];
    let data = || dumps.iter().flat_map(|dump| dump.data.values().copied());
    data().for_each(|content| copies[usize::from(content)] += 1);
    let zeroes = std::mem::take(&mut copies[0]);
    let mut slots: Vec<u8> = Vec::new();
    for content in data() {
        if copies[usize::from(content)] > 1 && !slots.contains(&content) {
            slots.push(content);
        }
    }
    let slot = |content: &u8| slots.iter().position(|shared| shared == content);
    let total = &census.total;
    let pages: u64 = images.iter().map(|image| u64::from(image.page_count())).sum();
    let holes = pages - data().count() as u64;
    let beyond_first: u64 = copies.iter().map(|copies| copies.saturating_sub(1)).sum();
    assert_eq!((total.pages, total.hole_pages, total.zero_pages), (pages, holes, holes + zeroes));
    assert_eq!(total.distinct_pages, copies.iter().filter(|&&copies| copies > 0).count() as u64);
    assert_eq!(total.shareable_pages, copies.iter().filter(|&&copies| copies > 1).sum::<u64>());
    assert_eq!(total.saveable_pages, beyond_first + zeroes);
    assert_eq!(census.slots, slots.len() as u64);

    let mut extents = 0;
    for (index, (dump, image)) in dumps.iter().zip(images).enumerate() {
        let (counted, keys) = (&census.images[index], &census.keys[index]);
        let (mut runs, mut gaps, mut last, mut next) = (0, 0, None, 0);
        let end = [(image.page_count(), None)];
        let data = dump.data.iter().map(|(&page, content)| (page, Some(slot(content))));
        for (page, slot) in data.chain(end) {
            // First the hole below, if there is one.
            for slot in [(next < page).then_some(None), slot].into_iter().flatten() {
                match (slot, last) {
                    (None, Some(None)) => {}
                    (None, _) => gaps += 1,
                    (Some(slot), Some(Some(before))) if slot == before + 1 => {}
                    (Some(_), _) => runs += 1,
                }
                last = Some(slot);
            }
            next = page + 1;
        }
        assert_eq!((counted.extents, counted.vmas_needed), (runs, runs + gaps));
        extents += runs;
        let is_same = |(page, content): &(&u32, &u8)| {
            **content != 0 && dumps[0].data.get(page) == Some(content)
        };
        let same = dump.data.iter().filter(is_same).count() as u64;
        assert_eq!(counted.same_position_pages, (index > 0).then_some(same));
        for about in dump.data.keys().copied().flat_map(|page| [page, page + 1]) {
            let key = keys::key_of(&page(dump.data.get(&about).copied().unwrap_or(0)));
            assert_eq!(keys.get(about), key, "page {about}");
        }
    }
    let classes = &total.extent_lengths.classes;
    assert_eq!(
        (total.extents, classes.iter().map(|class| class.extents).sum()),
        (extents, extents)
    );
    assert_eq!(classes.iter().map(|class| class.pages).sum::<u64>(), total.shareable_pages);
}

fn page(content: u8) -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    page[PAGE_SIZE - 1] = content;
    page
}

fn offset(page: u32) -> u64 {
    u64::from(page) * PAGE_SIZE as u64
}
