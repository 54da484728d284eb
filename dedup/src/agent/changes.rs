//! Finding out what the guest has changed, and taking it back from the broker.
//!
//! Only pages that the change source names are looked at: a page can leave its slot, or stop being
//! zero, only by being written.

use std::ops::Range;

use super::{Agent, AgentError};
use crate::LinearIndex;
use crate::bitmap::Bitmap;
use crate::protocol::{Broker, Outcome};
use crate::sys::PageKind;

/// Runs that lie closer together than this are asked about in one system call.
const NEAR_PAGES: usize = 64;

impl Agent {
    /// Asks which pages changed since the last pass, withdraws those from the trees, and returns
    /// the calm ones: changed before, and not since.
    pub(super) fn take_changes(&mut self, broker: &mut dyn Broker) -> Result<Bitmap, AgentError> {
        self.changes.collect(&mut self.fresh).map_err(AgentError::Changes)?;
        let mut fresh = self.fresh.clone();
        if std::mem::take(&mut self.is_marking) {
            self.touched.clear();
        } else {
            self.touched.union_with(&fresh);
        }
        let mut calm = self.pending.clone();
        calm.subtract(&fresh);

        let mut suspects = self.shared.clone();
        suspects.union_with(&self.zero);
        suspects.intersect_with(&fresh);
        let mut left = self.find_private(&suspects)?;
        // Nothing can fail any more before all that was collected has been taken in.
        self.fresh.clear();
        // A page of zeroes has no item to take back.
        self.zero.subtract(&left);
        fresh.subtract(&suspects);
        fresh.union_with(&left);
        self.pending.union_with(&fresh);
        self.deferred.subtract(&fresh);

        left.intersect_with(&self.shared);
        self.events.breaks += left.count() as u64;
        self.shared.subtract(&left);
        if !left.is_empty() {
            self.stale.note_left();
        }
        fresh.intersect_with(&self.waiting);
        self.waiting.subtract(&fresh);
        left.union_with(&fresh);
        let outcomes: Vec<Outcome> =
            left.iter().map(|linear| Outcome::Left { linear: linear_index(linear) }).collect();
        self.say(broker, outcomes)?;
        Ok(calm)
    }

    /// The pages among `suspects` that are the VM's own now, by the kernel's account.
    fn find_private(&self, suspects: &Bitmap) -> Result<Bitmap, AgentError> {
        let mut private = Bitmap::new(suspects.len());
        self.scan_near(suspects, 0..suspects.len(), |linear, kind| {
            if matches!(kind, PageKind::Private | PageKind::Swapped) {
                private.insert(linear);
            }
        })?;
        Ok(private)
    }

    /// Calls `visit` with each page of `pages` in `within` that is there, and what stands behind it.
    pub(super) fn scan_near(
        &self,
        pages: &Bitmap,
        within: Range<usize>,
        mut visit: impl FnMut(usize, PageKind),
    ) -> Result<(), AgentError> {
        for range in near_runs(pages, within) {
            let mut next = range.start;
            while next < range.end {
                let span = self.space.span(linear_index(next), count(range.end - next));
                self.process
                    .pagemap
                    .scan(span, |first, count_pages, kind| {
                        let start = next + first as usize;
                        (start..start + count_pages as usize)
                            .filter(|&linear| pages.contains(linear))
                            .for_each(|linear| visit(linear, kind));
                    })
                    .map_err(AgentError::Pagemap)?;
                next += span.count_pages() as usize;
            }
        }
        Ok(())
    }
}

/// The runs of `pages` in `within`, with those that lie near each other joined across the gap.
fn near_runs(pages: &Bitmap, within: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut runs = pages.runs_within(within).peekable();
    std::iter::from_fn(move || {
        let mut range = runs.next()?;
        while let Some(next) = runs.next_if(|next| next.start - range.end < NEAR_PAGES) {
            range.end = next.end;
        }
        Some(range)
    })
}

/// A bitmap position as the page that it stands for.
pub(super) fn linear_index(position: usize) -> LinearIndex {
    LinearIndex(count(position))
}

/// A number of pages of one VM, which the space has checked to fit.
pub(super) fn count(pages: usize) -> u32 {
    u32::try_from(pages).unwrap_or_else(|_| unreachable!("{pages} pages in one VM"))
}
