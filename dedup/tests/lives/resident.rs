//! A VM of a life, and what each of its pages must hold.

use std::ops::Range;
use std::sync::Arc;

use pagefold_dedup::{AnonymousMemory, DedupMode, Engine, LinearIndex, PAGE_SIZE};

use crate::common::{TestVm, page};

/// A page's content: 0 for zeroes, otherwise a number of [`page`].
pub(super) type Content = u32;

/// Where the test sees a page.
#[derive(Clone)]
struct Place {
    memory: Arc<AnonymousMemory>,
    offset_bytes: usize,
}

/// A VM that is attached, or was once.
pub(super) struct Resident {
    pub(super) vm: TestVm,
    pub(super) domain: &'static str,
    pub(super) mode: DedupMode,
    pub(super) is_attached: bool,
    contents: Vec<Content>,
    excluded: Vec<bool>,
    places: Vec<Place>,
}

impl Resident {
    /// A VM of zeroes that is not attached yet.
    pub(super) fn new(id: u32, page_count: u32, domain: &'static str) -> Self {
        let vm = TestVm::new(id, page_count);
        let count = page_count as usize;
        let place = |page| Place { memory: vm.memory.clone(), offset_bytes: page * PAGE_SIZE };
        Self {
            domain,
            mode: DedupMode::On,
            is_attached: false,
            contents: vec![0; count],
            excluded: vec![false; count],
            places: (0..count).map(place).collect(),
            vm,
        }
    }

    /// The attached clone of an attached VM, which begins with all that it has.
    pub(super) fn clone_of(parent: &Self, id: u32, engine: &mut Engine) -> Self {
        let mut clone = Self::new(id, parent.page_count(), parent.domain);
        clone.contents.clone_from(&parent.contents);
        clone.excluded.clone_from(&parent.excluded);
        clone.mode = parent.mode;
        clone.is_attached = true;
        let (memory, changes) = (clone.vm.memory.clone(), clone.vm.changes());
        engine.attach_clone(parent.vm.id, clone.vm.id, memory, changes).unwrap();
        clone.check_bytes();
        clone
    }

    pub(super) fn page_count(&self) -> u32 {
        self.contents.len() as u32
    }

    /// Attaches it, with all pages to be folded.
    pub(super) fn attach(&mut self, engine: &mut Engine) {
        self.vm.attach(engine, self.domain, self.mode);
        self.excluded.fill(false);
        self.is_attached = true;
    }

    /// Detaches it; it keeps its bytes.
    pub(super) fn detach(&mut self, engine: &mut Engine) {
        engine.detach(self.vm.id).unwrap();
        self.is_attached = false;
        self.check_bytes();
    }

    /// Whether all of its pages are where they were at first, so that it can be attached again.
    pub(super) fn is_in_place(&self) -> bool {
        self.places.iter().all(|place| Arc::ptr_eq(&place.memory, &self.vm.memory))
    }

    pub(super) fn write(&mut self, number: u32, content: Content) {
        let Place { memory, offset_bytes } = &self.places[number as usize];
        memory.write(*offset_bytes, &bytes_of(content));
        self.vm.mark(number as usize);
        self.contents[number as usize] = content;
    }

    pub(super) fn discard(&mut self, engine: &mut Engine, pages: Range<u32>) {
        let report =
            engine.discard(self.vm.id, LinearIndex(pages.start), pages.len() as u32).unwrap();
        assert_eq!(report.kept_pages, 0, "{report:?}");
        self.contents[pages.start as usize..pages.end as usize].fill(0);
    }

    pub(super) fn set_mergeable(
        &mut self,
        engine: &mut Engine,
        pages: Range<u32>,
        mergeable: bool,
    ) {
        let (first, page_count) = (LinearIndex(pages.start), pages.len() as u32);
        engine.set_mergeable(self.vm.id, first, page_count, mergeable).unwrap();
        self.excluded[pages.start as usize..pages.end as usize].fill(!mergeable);
    }

    /// Moves pages to new memory, whose own bytes are to be lost.
    pub(super) fn relocate(&mut self, engine: &mut Engine, pages: Range<u32>) {
        let memory = Arc::new(AnonymousMemory::new(pages.len() as u32).unwrap());
        memory.write(0, &[0xee]);
        let (first, to) = (LinearIndex(pages.start), memory.clone());
        engine.relocate(self.vm.id, first, pages.len() as u32, to).unwrap();
        for (index, number) in pages.enumerate() {
            let place = Place { memory: memory.clone(), offset_bytes: index * PAGE_SIZE };
            self.places[number as usize] = place;
        }
    }

    /// What each page holds that may be shared.
    pub(super) fn foldable(&self) -> impl Iterator<Item = Content> {
        let is_folded = self.is_attached && self.mode == DedupMode::On;
        let pages = self.contents.iter().zip(&self.excluded).filter(move |_| is_folded);
        pages.filter(|(_, excluded)| !**excluded).map(|(&content, _)| content)
    }

    /// That every page holds what was written to it last.
    pub(super) fn check_bytes(&self) {
        let mut bytes = [0; PAGE_SIZE];
        for (number, (place, &content)) in self.places.iter().zip(&self.contents).enumerate() {
            place.memory.read(place.offset_bytes, &mut bytes);
            assert!(bytes == bytes_of(content), "page {number} of VM {} is wrong", self.vm.id);
        }
    }
}

fn bytes_of(content: Content) -> [u8; PAGE_SIZE] {
    if content == 0 { [0; PAGE_SIZE] } else { page(content) }
}
