//! Taking the memory of a VM that has ended off its slots, a chunk at a time, so that neither the page
//! faults of other VMs nor requests wait for all of it.

use std::io;
use std::ops::Range;

use crate::LinearIndex;
use crate::agent::Agent;
use crate::agent::merge::runs::Run;
use crate::page_range::PageRange;
use crate::protocol::{Broker, Outcome};

/// Pages of a chunk at most: the kernel frees each.
const CHUNK_PAGES: u32 = 2048;

/// Pages of a chunk, about, that share slots: the broker drops their items, and may punch their slots. As many
/// may wait for a twin.
pub(super) const LEFT_PAGES: u32 = 512;

/// Mappings of a chunk at most, which are replaced while nobody in the process can fault.
const CHUNK_MAPPINGS: usize = 256;

impl Agent {
    /// Gives up the chunk of the VM's memory that begins at page `start`: it lies over no slot any more,
    /// and reads as zeroes. Returns where the next one begins, which is the number of the VM's pages after
    /// the last. O(pages of the chunk).
    ///
    /// # Errors
    ///
    /// The kernel's: `ENOMEM` at the limit of mappings. The chunk is emptied, and its pages have left
    /// their slots, but it may still lie over them: the same call is to be made again.
    pub(crate) fn leave(
        &mut self,
        broker: &mut dyn Broker,
        start: LinearIndex,
    ) -> io::Result<LinearIndex> {
        let pages = start..self.chunk_end(start);
        self.work.mapped_runs += 1;
        let span = self.space.span(start, pages.page_count());
        // Frees the pages with the lock of the mappings held for reading only, so that little is left
        // to be done when it is held for writing.
        let emptied = span.discard();
        let locked = self.locked_among(pages.clone());
        let whole = Run::replacing(&pages);
        // What replaces many mappings by one is refused, too, when there are too many.
        let map = || match span.map_anonymous() {
            Err(error) if error.replaced.is_empty() => {
                self.process.spare.lend(|| span.map_anonymous())
            }
            result => result,
        };
        let (replaced, left) = match emptied.map(|()| map()) {
            Ok(Ok(())) => (vec![whole], Ok(pages.end)),
            Ok(Err(error)) => {
                let parts = error.replaced.into_iter();
                let parts = parts.map(|part| whole.part(part.start, part.end - part.start));
                (parts.collect(), Err(error.source))
            }
            Err(error) => (Vec::new(), Err(error)),
        };
        let mut outcomes = self.lose(pages);
        for run in replaced {
            outcomes.push(Outcome::unbacked(&run.range()));
            self.place(&run);
            // Its owner may use it for something else: what is not there is locked when it is used.
            self.lock_again(&locked, &run.range(), &[]);
        }
        self.recount_locked(&locked);
        if let Err(error) = self.report(broker, outcomes) {
            // Its whole state of the VM is dropped when the VM has left.
            log::debug!("VM {}: {error}", self.vm);
            self.unreported.clear();
        }
        left
    }

    /// The end of the chunk that begins at a page.
    fn chunk_end(&self, start: LinearIndex) -> LinearIndex {
        let piece_end = self.space.piece(start).end();
        let known = [&self.shared, &self.offered, &self.deferred];
        let ends = known.map(|set| set.stretch(start, LEFT_PAGES, CHUNK_PAGES));
        let end = ends.into_iter().fold(piece_end, LinearIndex::min);
        let mut extents = self.extents.overlapping(start, end);
        extents.nth(CHUNK_MAPPINGS).map_or(end, |extent| extent.linear)
    }

    /// Drops what is known of pages whose bytes are lost, and returns what that is to the broker.
    pub(super) fn lose(&mut self, pages: Range<LinearIndex>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for placed in [&self.shared, &self.offered, &self.deferred] {
            let left = placed.runs_within(pages.clone()).flat_map(PageRange::pages);
            outcomes.extend(left.map(|linear| Outcome::Left { linear }));
        }
        self.work.noted_pages += outcomes.len() as u64;
        self.own_copies.forget(pages.clone());
        let sets = [
            &mut self.shared,
            &mut self.zero,
            &mut self.offered,
            &mut self.dirty,
            &mut self.deferred,
            &mut self.visit.scan_set,
        ];
        for set in sets {
            set.remove_range(pages.clone());
        }
        outcomes
    }
}
