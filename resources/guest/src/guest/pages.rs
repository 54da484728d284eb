//! The heap pages with what each must hold.

use pagefold_guest::params::Params;
use pagefold_guest::pattern::{Content, ContentKind, Mismatch};
use pagefold_guest::placement::{PageKind, PageTag, PlacementError, place};
use pagefold_guest::report::{Corruption, Report, Tally};

use super::serial::print;
use crate::sys::Memory;

/// `CORRUPT` lines printed between two heartbeats; further wrong pages are only counted.
const LINES_PER_BEAT: u32 = 16;

/// All heap pages, and the counts of what was done to them.
pub(crate) struct Pages {
    seed: u64,
    vm_number: u32,
    memory: Memory,
    tally: Tally,
    lines_left: u32,
}

impl Pages {
    /// Writes every heap page for the first time, zero pages too: what was never touched is no page.
    pub(crate) fn write_all(params: &Params, mut memory: Memory) -> Result<Self, PlacementError> {
        let (tags, versions) = memory.tables();
        place(params, tags)?;
        versions.fill(0);
        let mut pages = Self {
            seed: params.seed,
            vm_number: params.vm_number,
            memory,
            tally: Tally::default(),
            lines_left: LINES_PER_BEAT,
        };
        for index in 0..pages.count() {
            let (content, _) = pages.content(index);
            content.fill(pages.memory.page(index));
        }
        Ok(pages)
    }

    /// How many pages there are.
    pub(crate) fn count(&self) -> u32 {
        self.memory.page_count()
    }

    /// What was done so far.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// The pool of a page.
    pub(crate) fn kind(&mut self, index: u32) -> PageKind {
        self.tag(index).kind()
    }

    /// Whether a page holds what it holds when the guest rests.
    pub(crate) fn is_resting(&mut self, index: u32) -> bool {
        let (content, _) = self.content(index);
        content.kind() != ContentKind::Scratch
    }

    /// Verifies a page. If it is wrong, reports it, counts it, and puts it right, so that the same
    /// wrong bytes are counted once.
    #[inline(never)]
    pub(crate) fn verify(&mut self, index: u32) {
        let (content, version) = self.content(index);
        self.tally.verifications += 1;
        if let Err(mismatch) = content.verify(self.memory.page(index)) {
            self.report(index, content, version, mismatch);
            content.fill(self.memory.page(index));
        }
    }

    /// Verifies a page and rewrites it with its next content.
    pub(crate) fn rewrite(&mut self, index: u32) {
        self.verify(index);
        let (_, versions) = self.memory.tables();
        let version = &mut versions[index as usize];
        *version = version.wrapping_add(1);
        let (content, _) = self.content(index);
        content.fill(self.memory.page(index));
        self.tally.writes += 1;
    }

    /// Allows a few more `CORRUPT` lines.
    pub(crate) fn allow_lines(&mut self) {
        self.lines_left = LINES_PER_BEAT;
    }

    fn tag(&mut self, index: u32) -> PageTag {
        let (tags, _) = self.memory.tables();
        let bits = tags[index as usize];
        match PageTag::from_bits(bits) {
            Some(tag) => tag,
            None => panic!("the tag of page {index} has become {bits:#x}"),
        }
    }

    fn content(&mut self, index: u32) -> (Content, u32) {
        let tag = self.tag(index);
        let (_, versions) = self.memory.tables();
        let version = versions[index as usize];
        (Content::of(self.seed, self.vm_number, tag, version), version)
    }

    #[cold]
    fn report(&mut self, index: u32, content: Content, version: u32, mismatch: Mismatch) {
        self.tally.corrupt += 1;
        let Some(left) = self.lines_left.checked_sub(1) else {
            return;
        };
        self.lines_left = left;
        let (offset, want, got) = mismatch.byte();
        print(&Report::Corrupt(Corruption {
            page: index,
            offset,
            want,
            got,
            gpa: self.memory.gpa_of(index),
            kind: content.kind(),
            version,
        }));
    }
}
