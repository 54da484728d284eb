//! What an agent counts.

use super::Agent;
use crate::LinearIndex;
use crate::memory_count::OwnMemory;
use crate::mode::DedupMode;
use crate::page_set::PageSet;
use crate::protocol::Outcome;
use crate::stats::VmStats;
use crate::sys::Space;

impl Agent {
    /// Pages that changed and have not been looked at since, among those that are to be and are not
    /// written out.
    fn volatile_count(&self, swapped: Option<&PageSet>) -> u64 {
        if self.mode == DedupMode::Off {
            return 0;
        }
        let others: Vec<&PageSet> = self.excluded.iter().chain(swapped).collect();
        u64::from(self.dirty.count_without(&others))
    }

    /// Pages that were deferred, and that nothing has become of since, among those that are to be
    /// folded.
    fn deferred_count(&self) -> u64 {
        let others = [&self.shared, &self.zero, &self.offered, &self.dirty];
        let others: Vec<&PageSet> = others.into_iter().chain(&self.excluded).collect();
        u64::from(self.deferred.count_without(&others))
    }

    pub(crate) fn extent_count(&self) -> u64 {
        self.extents.len() as u64
    }

    /// Mappings of the VM's memory beyond those that it would have without folding.
    pub(crate) fn folded_vma_count(&self) -> u64 {
        self.vmas.saturating_sub(self.space.pieces().len() as u64)
    }

    /// Where the VM's memory lies.
    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// The VM's part of the statistics, with what memory it takes, if that is known. O(pages / 64).
    pub(crate) fn stats(
        &self,
        domain: &str,
        unshared_pages: u64,
        own: Option<&OwnMemory>,
    ) -> VmStats {
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
            volatile_pages: self.volatile_count(own.map(|own| &own.swapped)),
            swapped_pages: own.map(OwnMemory::swapped_pages),
            unmerging_pages: 0,
            extents: self.extents.len() as u64,
            vmas: self.vmas,
            private_bytes: own.map(OwnMemory::private_bytes),
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
            &self.offered,
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
}
