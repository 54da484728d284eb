//! Pages made anonymous memory again, on real mappings, and what the kernel may refuse meanwhile.

use super::*;
use crate::sys::scratch::faults::{Fault, inject};
use crate::sys::{AnonymousMemory, MappingBounds, Memfd, PageKind, Pagemap, Space};
use crate::{LinearIndex, PAGE_SIZE, Slot};

const PAGES: u32 = 16;

/// Memory whose page N begins with N + 1, all of it private. Pages 4 to 7 lie over slots, of which 5 has
/// its own copy; page 9 lies over one, too. Page 8 is not there.
struct Folded {
    memory: Arc<AnonymousMemory>,
    space: Space,
    uffd: Userfaultfd,
    mover: PageMover,
}

fn byte(page: u32) -> u8 {
    u8::try_from(page + 1).unwrap()
}

impl Folded {
    fn new() -> Self {
        let store = Memfd::new(PAGES).unwrap();
        let memory = Arc::new(AnonymousMemory::new(PAGES).unwrap());
        let space = Space::new(memory.clone()).unwrap();
        for page in (0..PAGES).filter(|&page| page != 8) {
            let bytes = [byte(page); PAGE_SIZE];
            memory.write(page as usize * PAGE_SIZE, &bytes);
            store.write(Slot(page), &bytes).unwrap();
        }
        for (first, page_count) in [(4, 4), (9, 1)] {
            let span = space.span(LinearIndex(first), page_count);
            span.map_file(store.raw(), u64::from(first) * PAGE_SIZE as u64).unwrap();
        }
        memory.write(5 * PAGE_SIZE, &[byte(5)]);
        let uffd = Userfaultfd::new(Faults::All).unwrap();
        let folded = Self { memory, space, uffd, mover: PageMover::new(Faults::All).unwrap() };
        folded.register();
        folded
    }

    fn all(&self) -> Span<'_> {
        self.space.span(LinearIndex(0), PAGES)
    }

    fn register(&self) {
        self.all().advise_guest().unwrap();
        self.uffd.register(self.all()).unwrap();
    }

    /// Makes pages 4 to 9 anonymous.
    fn make_anonymous(&self) -> Result<(), MakeAnonymousError> {
        self.make_anonymous_by(None)
    }

    /// The same, of pages that have a policy.
    fn make_anonymous_by(&self, policy: Option<&MemoryPolicy>) -> Result<(), MakeAnonymousError> {
        let (around, present) = (self.all().part(3, 8), [0..4, 5..6]);
        let result = self.mover.make_anonymous(&self.uffd, around, 1..7, &present, policy);
        self.register();
        result
    }

    /// Pages by kind, and the first byte of each.
    fn look(&self) -> (Vec<(u32, u32, PageKind)>, Vec<u8>) {
        let mut kinds = Vec::new();
        let visit = |first, page_count, kind| kinds.push((first, page_count, kind));
        Pagemap::open().unwrap().scan(self.all(), visit).unwrap();
        let mut first = [0];
        let bytes = (0..PAGES).map(|page| {
            self.memory.read(page as usize * PAGE_SIZE, &mut first);
            first[0]
        });
        (kinds, bytes.collect())
    }

    fn count_mappings(&self) -> usize {
        let bounds = MappingBounds::open().unwrap().expect("PROCMAP_QUERY");
        let (mut addr, end) = (self.all().start(), self.all().start() + self.all().len_bytes());
        let mut count = 0;
        while addr < end {
            (addr, count) = (bounds.at(addr).unwrap().end, count + 1);
        }
        count
    }

    /// That every page holds its bytes, and can be protected.
    fn check(&self) {
        let (_, bytes) = self.look();
        let expected: Vec<u8> =
            (0..PAGES).map(|page| if page == 8 { 0 } else { byte(page) }).collect();
        assert_eq!(bytes, expected);
        drop(Protected::new(&self.uffd, self.all()).unwrap());
        for page in 0..PAGES as usize {
            self.memory.write(page * PAGE_SIZE + 8, &[1]);
        }
    }
}

#[test]
fn pages_over_slots_become_one_mapping_with_their_neighbours() {
    let folded = Folded::new();
    assert_eq!(folded.count_mappings(), 5);
    folded.make_anonymous().unwrap();
    assert_eq!(folded.count_mappings(), 1);
    let (kinds, _) = folded.look();
    assert_eq!(kinds, [(0, 8, PageKind::Private), (9, 7, PageKind::Private)], "8 is not there");
    folded.check();
}

#[test]
fn the_memory_stays_one_mapping_however_often_that_is_done() {
    let folded = Folded::new();
    let store = Memfd::new(PAGES).unwrap();
    for round in 0..200 {
        folded.make_anonymous().unwrap();
        assert_eq!(folded.count_mappings(), 1, "round {round}");
        for page in [4, 6] {
            let bytes = [byte(page); PAGE_SIZE];
            store.write(Slot(page), &bytes).unwrap();
            let span = folded.space.span(LinearIndex(page), 1);
            span.map_file(store.raw(), u64::from(page) * PAGE_SIZE as u64).unwrap();
        }
        folded.register();
    }
    folded.check();
}

#[test]
fn a_move_that_is_refused_leaves_the_pages_as_they_were() {
    let folded = Folded::new();
    inject(Fault::Early);
    assert!(matches!(folded.make_anonymous(), Err(MakeAnonymousError::Kept(_))));
    assert_eq!(folded.count_mappings(), 5);
    folded.check();
    folded.make_anonymous().unwrap();
    assert_eq!(folded.count_mappings(), 1);
}

#[test]
fn a_move_that_is_refused_when_the_old_mapping_is_gone_loses_no_byte() {
    for fault in [Fault::Late, Fault::Pages] {
        let folded = Folded::new();
        inject(fault);
        let result = folded.make_anonymous();
        assert!(matches!(result, Err(MakeAnonymousError::Apart(_))), "{fault:?}: {result:?}");
        let (kinds, _) = folded.look();
        assert!(kinds.iter().all(|&(_, _, kind)| kind == PageKind::Private), "{kinds:?}");
        folded.check();
    }
}

#[test]
fn a_page_that_was_first_written_after_somebody_looked_keeps_its_bytes() {
    let folded = Folded::new();
    // The page map said before that it is not there.
    folded.memory.write(8 * PAGE_SIZE, &[byte(8); PAGE_SIZE]);
    folded.make_anonymous().unwrap();
    assert_eq!(folded.count_mappings(), 1);
    let (_, bytes) = folded.look();
    assert_eq!(bytes, (0..PAGES).map(byte).collect::<Vec<u8>>());
}

#[test]
fn pages_are_copied_under_the_policy_that_they_are_to_have() {
    let folded = Folded::new();
    let buffer = || folded.mover.scratch.lock().unwrap().buffer.addresses().start;
    let bound = MemoryPolicy::node_0();
    MemoryPolicy::node_0().apply(folded.all()).unwrap();
    if MemoryPolicy::at(folded.all().start()).is_none() {
        eprintln!("this kernel knows no nodes: nothing is tested");
        return;
    }
    // The same buffer for one VM and then another.
    folded.make_anonymous_by(Some(&bound)).unwrap();
    assert_eq!(MemoryPolicy::at(buffer()), Some(bound));
    folded.make_anonymous_by(None).unwrap();
    assert_eq!(MemoryPolicy::at(buffer()), None);
    assert_eq!(
        folded.look().1,
        (1..=16).map(|byte| if byte == 9 { 0 } else { byte }).collect::<Vec<u8>>()
    );
}
