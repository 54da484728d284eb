//! Moves that the kernel refuses, on real mappings.

use super::*;
use crate::Slot;
use crate::sys::fixed::{Backing, fill_gaps};
use crate::sys::gaps;
use crate::sys::{AnonymousMemory, Faults, Memfd, Protected, Region};

const PAGES: u32 = 12;

/// Memory whose page N begins with N + 1: pages 2 and 5 to 7 over slots, 6 with its own copy.
fn folded() -> (Arc<AnonymousMemory>, Space) {
    let store = Memfd::new(PAGES).unwrap();
    let memory = Arc::new(AnonymousMemory::new(PAGES).unwrap());
    let space = Space::new(memory.clone()).unwrap();
    for page in 0..PAGES {
        let bytes = [byte(page); PAGE_SIZE];
        memory.write(page as usize * PAGE_SIZE, &bytes);
        store.write(Slot(page), &bytes).unwrap();
    }
    for (first, page_count) in [(2, 1), (5, 3)] {
        let span = space.span(LinearIndex(first), page_count);
        span.map_file(store.raw(), u64::from(first) * PAGE_SIZE as u64).unwrap();
    }
    memory.write(6 * PAGE_SIZE, &[byte(6)]);
    (memory, space)
}

fn uffd() -> Userfaultfd {
    Userfaultfd::new(Faults::All).unwrap()
}

fn byte(page: u32) -> u8 {
    u8::try_from(page + 1).unwrap()
}

/// The first byte of each page, by address.
fn read(memory: &AnonymousMemory) -> Vec<u8> {
    let mut first = [0];
    let pages = 0..memory.len_bytes() / PAGE_SIZE;
    let read = |page| {
        memory.read(page * PAGE_SIZE, &mut first);
        first[0]
    };
    pages.map(read).collect()
}

/// The first byte of each page, by linear index.
fn read_space(space: &Space) -> Vec<u8> {
    let mut bytes = [0; PAGE_SIZE];
    let read = |page| {
        space.span(LinearIndex(page), 1).copy_page(0, &mut bytes);
        bytes[0]
    };
    (0..space.page_count()).map(read).collect()
}

/// How many mappings of files are in a memory.
fn count_files(memory: &AnonymousMemory) -> usize {
    let region = memory.regions()[0];
    let inside = region.host_addr..region.host_addr + region.len_bytes();
    let is_inside = |mapping: &&ProcessMapping| {
        mapping.range.start < inside.end && inside.start < mapping.range.end
    };
    let all = ProcessMapping::all().unwrap();
    all.iter().filter(is_inside).filter(|mapping| mapping.inode != 0).count()
}

#[test]
fn pages_of_every_kind_move_and_leave_nothing_but_zeroes() {
    let (memory, mut space) = folded();
    let destination = Arc::new(AnonymousMemory::new(8).unwrap());
    destination.write(0, &[99]);
    let mappings = space.relocate(LinearIndex(1), 8, destination.clone(), &uffd()).unwrap();
    assert_eq!(mappings, 5, "anonymous, slot, anonymous, slots, anonymous");
    assert_eq!(read(&destination), [2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(read(&memory), [1, 0, 0, 0, 0, 0, 0, 0, 0, 10, 11, 12]);
    assert_eq!(read_space(&space), (1..=12).collect::<Vec<u8>>());
    assert_eq!((count_files(&memory), count_files(&destination)), (0, 2));
    let ends: Vec<u32> = space.pieces().iter().map(|piece| piece.end().0).collect();
    assert_eq!(ends, [1, 9, 12]);

    // Across the ends of pieces, and the destination is kept as long as it is needed.
    let whole = Arc::new(AnonymousMemory::new(PAGES).unwrap());
    space.relocate(LinearIndex(0), PAGES, whole.clone(), &uffd()).unwrap();
    assert_eq!(Arc::strong_count(&destination), 1, "no page is left in it");
    assert_eq!(space.pieces().len(), 1);
    drop(destination);
    space.relocate(LinearIndex(0), PAGES, memory.clone(), &uffd()).unwrap();
    assert_eq!(read(&memory), (1..=12).collect::<Vec<u8>>());
    assert_eq!((count_files(&memory), count_files(&whole)), (2, 0));
}

#[test]
fn pieces_that_continue_each_other_are_one() {
    let (_memory, mut space) = folded();
    let destination = Arc::new(AnonymousMemory::new(PAGES).unwrap());
    let host_addr = destination.regions()[0].host_addr;
    let ends = |space: &Space| space.pieces().iter().map(|it| it.end().0).collect::<Vec<u32>>();
    for (first, page_count, expected) in
        [(4, 2, vec![4, 6, 12]), (8, 1, vec![4, 6, 8, 9, 12]), (6, 2, vec![4, 9, 12])]
    {
        let linear = LinearIndex(first);
        let host_addr = host_addr + first as usize * PAGE_SIZE;
        space.replace(&Piece { linear, page_count, host_addr, memory: destination.clone() });
        assert_eq!(ends(&space), expected);
        assert_eq!(space.span(linear, page_count).start(), host_addr);
    }
    // Side by side, but not by linear index.
    let stray = Piece { linear: LinearIndex(10), page_count: 1, host_addr, memory: destination };
    space.replace(&stray);
    assert_eq!(ends(&space), [4, 9, 10, 11, 12]);
}

#[test]
fn a_move_that_the_kernel_refuses_midway_is_undone() {
    let (memory, mut space) = folded();
    let destination = Arc::new(AnonymousMemory::new(PAGES).unwrap());
    let sealed = space.span(LinearIndex(9), 1);
    // SAFETY: mseal(2) forbids that the page is ever unmapped or moved, and changes nothing else.
    let result = unsafe { libc::syscall(libc::SYS_mseal, sealed.as_ptr(), sealed.len_bytes(), 0) };
    if result < 0 {
        // Before Linux 6.10: the test below covers all but the kernel's own part.
        eprintln!("skipped: {}", io::Error::last_os_error());
        return;
    }
    let before = space.span(LinearIndex(0), 1).start();
    match space.relocate(LinearIndex(0), PAGES, destination.clone(), &uffd()) {
        Err(RemapError::Refused(error)) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        other => panic!("{other:?}"),
    }
    assert_eq!(space.span(LinearIndex(0), 1).start(), before);
    assert_eq!(read(&memory), (1..=12).collect::<Vec<u8>>());
    assert_eq!(read(&destination), [0; 12], "all of it is mapped");
    assert_eq!((count_files(&memory), count_files(&destination)), (2, 0));
    assert_eq!(space.pieces().len(), 1);
    // What has been moved and moved back is written like any other.
    memory.write(5 * PAGE_SIZE, &[50]);
    assert_eq!(read_space(&space)[5], 50);
}

#[test]
fn a_refused_move_leaves_no_hole_in_the_destination() {
    let (memory, space) = folded();
    let destination: Arc<dyn GuestMemory> = Arc::new(AnonymousMemory::new(4).unwrap());
    let other = Space::new(destination).unwrap();
    let (from, to) = (space.span(LinearIndex(1), 4), other.span(LinearIndex(0), 4));
    let uffd = uffd();
    uffd.register(from).unwrap();
    // Three mappings, of which one is covered: no kernel moves them at once.
    move_over(from, to).unwrap_err();
    assert_eq!(read_space(&other), [0; 4]);
    assert_eq!(read(&memory), (1..=12).collect::<Vec<u8>>());

    // What older kernels do before they refuse.
    gaps::make(to.part(1, 2));
    let filled: Vec<u32> = fill_gaps(to, Backing::Anonymous).into_iter().flatten().collect();
    assert_eq!(filled, [1, 2]);
    assert_eq!(fill_gaps(to, Backing::Anonymous), []);
    assert_eq!(read_space(&other), [0; 4]);
}

#[test]
fn a_move_that_cannot_be_undone_leaves_every_page_where_the_space_says() {
    // Each step of the way there may fail, and each step of the way back.
    for fails_at in 0..5 {
        for fails_back_at in 0..=fails_at {
            let (memory, mut space) = folded();
            let destination = Arc::new(AnonymousMemory::new(PAGES).unwrap());
            let mut step = 0;
            let result = space.relocate_with(
                LinearIndex(0),
                PAGES,
                destination.clone(),
                &uffd(),
                |from, to| {
                    step += 1;
                    if step == fails_at + 1 || step == fails_at + 2 + fails_back_at {
                        return Err(io::Error::from_raw_os_error(libc::ENOMEM));
                    }
                    transfer(from, to)
                },
            );
            // Mappings: pages 0-1, 2, 3-4, 5-7, 8-11. Moved back from the last that was moved.
            let ends = [0, 2, 3, 5, 8];
            let stuck = if fails_back_at < fails_at { ends[fails_at - fails_back_at] } else { 0 };
            match result {
                Err(RemapError::Refused(_)) => assert_eq!(stuck, 0),
                Err(RemapError::Stranded { moved_pages, .. }) => assert_eq!(moved_pages, stuck),
                other => panic!("{other:?}"),
            }
            assert_eq!(read_space(&space), (1..=12).collect::<Vec<u8>>());
            let there: Vec<u8> = read(&destination);
            let expected = |page: u32| if page < stuck { byte(page) } else { 0 };
            assert_eq!(there, (0..PAGES).map(expected).collect::<Vec<u8>>());
            assert_eq!(count_files(&memory) + count_files(&destination), 2);
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_touched() {
    let (memory, mut space) = folded();
    let refused = |space: &mut Space, first, page_count, to: AnonymousMemory| {
        to.write(0, &[99]);
        let to = Arc::new(to);
        let error =
            space.relocate(LinearIndex(first), page_count, to.clone(), &uffd()).unwrap_err();
        assert_eq!(read(&to)[0], 99);
        error
    };
    let one = || AnonymousMemory::new(1).unwrap();
    for (first, page_count) in [(0, 0), (PAGES, 1), (PAGES - 1, 2), (u32::MAX, 1), (1, u32::MAX)] {
        let error = refused(&mut space, first, page_count, one());
        assert!(matches!(error, RemapError::NoPages { .. }), "{error}");
    }
    let two = AnonymousMemory::with_layout(&[(0, 1), (1 << 20, 1)]).unwrap();
    for to in [one(), AnonymousMemory::new(3).unwrap(), two] {
        let error = refused(&mut space, 4, 2, to);
        assert!(matches!(error, RemapError::Destination { .. }), "{error}");
    }
    assert_eq!(read(&memory), (1..=12).collect::<Vec<u8>>());
    assert_eq!(space.pieces().len(), 1);
}

/// Some of the pages of other memory, as if they had been mapped by themselves.
struct Part {
    _whole: Arc<AnonymousMemory>,
    region: [Region; 1],
}

impl Part {
    fn of(whole: &Arc<AnonymousMemory>, first: u32, page_count: u32) -> Arc<dyn GuestMemory> {
        let host_addr = whole.regions()[0].host_addr + first as usize * PAGE_SIZE;
        let region = Region { linear: LinearIndex(0), page_count, gpa: 0, host_addr };
        Arc::new(Self { _whole: whole.clone(), region: [region] })
    }
}

// SAFETY: pages of anonymous memory that it keeps alive; no two parts of a test overlap.
unsafe impl GuestMemory for Part {
    fn regions(&self) -> &[Region] {
        &self.region
    }
}

#[test]
fn memory_beside_the_destination_can_still_be_protected() {
    let memory = Arc::new(AnonymousMemory::new(16).unwrap());
    // Nothing is there yet in any of them, so that the kernel can make one mapping of two.
    let mut moving = Space::new(Part::of(&memory, 12, 4)).unwrap();
    let beside = Space::new(Part::of(&memory, 0, 4)).unwrap();
    let uffd = uffd();
    for space in [&moving, &beside] {
        let span = space.whole(&space.pieces()[0]);
        span.advise_guest().unwrap();
        uffd.register(span).unwrap();
    }
    moving.relocate(LinearIndex(0), 4, Part::of(&memory, 4, 4), &uffd).unwrap();
    drop(Protected::new(&uffd, beside.span(LinearIndex(0), 4)).unwrap());
    Protected::new(&uffd, moving.span(LinearIndex(0), 4)).unwrap_err();
    uffd.register(moving.span(LinearIndex(0), 4)).unwrap();
    drop(Protected::new(&uffd, moving.span(LinearIndex(0), 4)).unwrap());
}
