//! What an agent counts.

use std::io;

use super::Agent;
use crate::LinearIndex;
use crate::bitmap::Bitmap;
use crate::mode::DedupMode;
use crate::protocol::Outcome;
use crate::stats::VmStats;
use crate::sys::PageKind;

impl Agent {
    /// Pages that changed and have not been looked at since, among those that are to be.
    fn count_volatile(&self) -> u64 {
        if self.mode == DedupMode::Off {
            return 0;
        }
        let forbidden = self.excluded.iter().flat_map(Bitmap::runs);
        let forbidden =
            forbidden.flat_map(|run| self.pending.runs_within(run)).map(|run| run.len());
        (self.pending.count() - forbidden.sum::<usize>()) as u64
    }

    /// Pages that were put off, and that nothing has become of since, among those that are to be
    /// folded.
    fn count_deferred(&self) -> u64 {
        let mut deferred = self.deferred.clone();
        let others = [&self.shared, &self.zero, &self.waiting, &self.pending];
        others.into_iter().chain(&self.excluded).for_each(|other| deferred.subtract(other));
        deferred.count() as u64
    }

    pub(crate) fn count_extents(&self) -> u64 {
        self.extents.len() as u64
    }

    /// Mappings of the VM's memory beyond those that it would have without folding.
    pub(crate) fn count_folded_vmas(&self) -> u64 {
        self.vmas.saturating_sub(self.space.pieces().len() as u64)
    }

    /// The VM's part of the statistics. O(pages / 64 + pages that are there).
    pub(crate) fn stats(&self, domain: &str, unshared_pages: u64) -> VmStats {
        VmStats {
            id: self.vm.0,
            domain: domain.to_owned(),
            mode: self.mode.to_string(),
            pages: u64::from(self.space.count_pages()),
            merging_pages: self.shared.count() as u64,
            zero_pages: self.zero.count() as u64,
            rmap_items: 0,
            profit: 0,
            unshared_pages,
            deferred_pages: self.count_deferred(),
            volatile_pages: self.count_volatile(),
            extents: self.extents.len() as u64,
            vmas: self.vmas,
            private_bytes: self.private_bytes().ok(),
            events: self.events,
        }
    }

    /// Bytes of this structure and what it points to, memory and store excepted.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        let bitmaps = [
            &self.fresh,
            &self.pending,
            &self.shared,
            &self.zero,
            &self.waiting,
            &self.deferred,
            &self.todo,
            &self.touched,
        ];
        let bitmaps = bitmaps.into_iter().chain(&self.excluded).chain(&self.huge);
        let bitmaps: usize = bitmaps.map(Bitmap::heap_bytes).sum();
        let maps = self.extents.heap_bytes() + self.regions.heap_bytes();
        let seams = self.seams.len() * size_of::<LinearIndex>() * 3 / 2;
        let unreported = self.unreported.capacity() * size_of::<Outcome>();
        (size_of::<Self>() + bitmaps + maps + seams + unreported) as u64
    }

    fn private_bytes(&self) -> io::Result<u64> {
        let mut pages = 0;
        for piece in self.space.pieces() {
            self.process.pagemap.scan(self.space.whole(piece), |_, count_pages, kind| {
                pages += if kind == PageKind::Private { u64::from(count_pages) } else { 0 };
            })?;
        }
        Ok(pages * crate::PAGE_SIZE as u64)
    }
}
