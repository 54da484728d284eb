//! Huge pages: a page of 4 KiB that goes must not leave its memory behind.
//!
//! A VM's memory gets none once it is folded, but may have some when that begins. Of one of which a
//! part is shared or given back the kernel splits the page table and keeps all 2 MiB until it runs
//! short of memory, so that what was saved on paper would be saved by nobody. KSM splits it first,
//! and so does an agent. Which pages are parts of one that is not mapped as such, because it is a multi-size
//! one or its page table was split before, the kernel does not report: where there are any, all that are there
//! may be.

use std::ops::Range;

use crate::LinearIndex;
use crate::agent::{Agent, AgentSetupError};
use crate::page_set::PageSet;
use crate::sys::{PageKind, large_folios_may_be_unseen};

impl Agent {
    /// Notes which pages are, or may be, parts of huge ones. O(pages that are there).
    pub(in crate::agent) fn find_huge_pages(&mut self) -> Result<(), AgentSetupError> {
        let mut huge = PageSet::new(self.space.page_count());
        let are_unseen = large_folios_may_be_unseen();
        for piece in self.space.pieces() {
            let mut visit = |first: u32, page_count: u32| {
                huge.insert_range(piece.linear.offset(first).run(page_count));
            };
            let (pagemap, span) = (&self.process.pagemap, self.space.whole(piece));
            let scanned = if are_unseen {
                pagemap.scan(span, |first, page_count, kind| {
                    // Swapped in again, a page is as large as the others that return with it.
                    if matches!(kind, PageKind::Private | PageKind::Swapped) {
                        visit(first, page_count);
                    }
                })
            } else {
                pagemap.scan_huge(span, visit)
            };
            scanned.map_err(AgentSetupError::Pagemap)?;
        }
        self.huge = (!huge.is_empty()).then_some(huge);
        Ok(())
    }

    /// Splits the huge pages of which `pages` are a part, before these go. O(1) once there are none.
    pub(in crate::agent) fn split_huge_pages(&mut self, pages: Range<LinearIndex>) {
        let Some(huge) = &mut self.huge else { return };
        let runs: Vec<Range<LinearIndex>> = huge.runs_within(pages).collect();
        for run in runs {
            huge.remove_range(run.clone());
            for (_, span) in self.space.spans(run) {
                if let Err(error) = span.split_huge_pages() {
                    // Folded all the same: the memory comes back when the kernel needs it.
                    log::debug!("VM {}: a huge page cannot be split: {error}", self.vm);
                }
            }
        }
        if huge.is_empty() {
            self.huge = None;
        }
    }
}
