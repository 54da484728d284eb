//! What an agent counts.

use std::io;
use std::ops::Range;

use super::Agent;
use crate::LinearIndex;
use crate::mode::DedupMode;
use crate::page_range::PageRange;
use crate::page_set::PageSet;
use crate::protocol::Outcome;
use crate::stats::VmStats;
use crate::sys::PageKind;

impl Agent {
    /// Pages that changed and have not been looked at since, among those that are to be and are not
    /// written out.
    fn count_volatile(&self, swapped: &[Range<LinearIndex>]) -> u64 {
        if self.mode == DedupMode::Off {
            return 0;
        }
        let mut volatile = self.dirty.clone();
        if let Some(excluded) = &self.excluded {
            volatile.subtract(excluded);
        }
        for pages in swapped {
            volatile.remove_range(pages.clone());
        }
        u64::from(volatile.count())
    }

    /// Pages that were put off, and that nothing has become of since, among those that are to be
    /// folded.
    fn deferred_count(&self) -> u64 {
        let mut deferred = self.deferred.clone();
        let others = [&self.shared, &self.zero, &self.waiting, &self.dirty];
        others.into_iter().chain(&self.excluded).for_each(|other| deferred.subtract(other));
        u64::from(deferred.count())
    }

    pub(crate) fn extent_count(&self) -> u64 {
        self.extents.len() as u64
    }

    /// Mappings of the VM's memory beyond those that it would have without folding.
    pub(crate) fn folded_vma_count(&self) -> u64 {
        self.vmas.saturating_sub(self.space.pieces().len() as u64)
    }

    /// The VM's part of the statistics. O(pages / 64 + pages that are there).
    pub(crate) fn stats(&self, domain: &str, unshared_pages: u64) -> VmStats {
        let own = self.own_memory().ok();
        let swapped = own.as_ref().map(|own| own.swapped.as_slice());
        VmStats {
            id: self.vm.0,
            domain: domain.to_owned(),
            mode: self.mode.to_string(),
            pages: u64::from(self.space.page_count()),
            merging_pages: u64::from(self.shared.count()),
            zero_pages: u64::from(self.zero.count()),
            rmap_items: 0,
            profit: 0,
            unshared_pages,
            deferred_pages: self.deferred_count(),
            volatile_pages: self.count_volatile(swapped.unwrap_or_default()),
            swapped_pages: swapped
                .map(|swapped| swapped.iter().map(|pages| u64::from(pages.page_count())).sum()),
            unmerging_pages: self.unwanted_count(false),
            extents: self.extents.len() as u64,
            vmas: self.vmas,
            private_bytes: own.map(|own| own.private_pages * crate::PAGE_SIZE as u64),
            events: self.events,
        }
    }

    /// Bytes of this structure and what it points to, memory and store excepted.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        let sets = [
            &self.undrained_dirty,
            &self.dirty,
            &self.shared,
            &self.zero,
            &self.waiting,
            &self.deferred,
            &self.visit.scan_set,
            &self.backlog.changed_since_mark,
            &self.backlog.unmarked,
        ];
        let sets = sets.into_iter().chain(&self.excluded).chain(&self.huge);
        let sets: usize = sets.map(PageSet::heap_bytes).sum();
        let maps = self.extents.heap_bytes() + self.regions.heap_bytes();
        let seams = self.seams.len() * size_of::<LinearIndex>() * 3 / 2;
        let unreported = self.unreported.capacity() * size_of::<Outcome>();
        (size_of::<Self>() + sets + maps + seams + unreported) as u64
    }

    /// What the kernel holds for the VM alone.
    fn own_memory(&self) -> io::Result<OwnMemory> {
        let mut own = OwnMemory::default();
        for piece in self.space.pieces() {
            let span = self.space.whole(piece);
            self.process.pagemap.scan(span, |first, page_count, kind| match kind {
                PageKind::Private => own.private_pages += u64::from(page_count),
                PageKind::Swapped => own.swapped.push(piece.linear.offset(first).run(page_count)),
                PageKind::Slot | PageKind::ZeroPage => {}
            })?;
        }
        Ok(own)
    }
}

/// Memory of a VM that nobody shares.
#[derive(Default)]
struct OwnMemory {
    /// Pages in memory.
    private_pages: u64,
    /// Runs of pages in swap.
    swapped: Vec<Range<LinearIndex>>,
}
