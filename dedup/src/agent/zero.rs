//! Zero pages: given back to the kernel, which supplies zeroes when they are read again.

use std::io;

use super::Agent;
use super::changes::{count, linear_index};
use super::runs::MAX_RUN_PAGES;
use crate::LinearIndex;
use crate::fingerprint::is_zero;
use crate::protocol::Outcome;
use crate::sys::{Protected, Span, Userfaultfd};

impl Agent {
    /// Discards those of `pages`, ascending, that are still zero when they cannot change.
    ///
    /// In anonymous memory this changes no mapping. A page in an extent would show its slot
    /// instead of zeroes, so there anonymous memory is mapped over it, if the budget allows.
    pub(super) fn discard_zeroes(&mut self, pages: &[usize], outcomes: &mut Vec<Outcome>) {
        let over_slot = |page: usize| self.extents.slot(linear_index(page)).is_some();
        let alike =
            |&one: &usize, &next: &usize| one + 1 == next && over_slot(one) == over_slot(next);
        let runs: Vec<(LinearIndex, u32, bool)> = pages
            .chunk_by(alike)
            .flat_map(|run| run.chunks(MAX_RUN_PAGES as usize))
            .map(|run| (linear_index(run[0]), count(run.len()), over_slot(run[0])))
            .collect();
        for (linear, count_pages, over_slot) in runs {
            let mut next = 0;
            while next < count_pages {
                let first = linear.offset(next);
                next += self.discard_run(first, count_pages - next, over_slot, outcomes);
            }
        }
    }

    /// Handles the pages from `linear` on that lie in one region, `count_pages` at most; says how
    /// many those are.
    fn discard_run(
        &mut self,
        linear: LinearIndex,
        count_pages: u32,
        over_slot: bool,
        outcomes: &mut Vec<Outcome>,
    ) -> u32 {
        let span = self.space.span(linear, count_pages);
        let count_pages = span.count_pages();
        let first = linear.0 as usize;
        let min_pages = self.budget.min_run_pages(0);
        if over_slot && count_pages < min_pages {
            self.deferred_at = self.deferred_at.min(min_pages);
            self.deferred.insert_range(first..first + count_pages as usize);
            self.events.budget_skips += u64::from(count_pages);
            return count_pages;
        }
        let mut discarded = Vec::new();
        let result = discard_span(&self.uffd, span, over_slot, &mut discarded);
        for &(part, len) in &discarded {
            let pages = first + part as usize..first + (part + len) as usize;
            self.pending.remove_range(pages.clone());
            self.zero.insert_range(pages);
            self.events.zero_discards += u64::from(len);
            if over_slot {
                let linear = linear.offset(part);
                self.extents.remove(linear, len, |_| {});
                outcomes.push(Outcome::Unbacked { linear, count_pages: len });
            }
        }
        if let Err(error) = result {
            log::debug!("VM {}: cannot give back {count_pages} zero pages: {error}", self.vm);
            self.events.errors += 1;
            let failed =
                (first..first + count_pages as usize).filter(|&page| !self.zero.contains(page));
            failed.collect::<Vec<_>>().into_iter().for_each(|page| {
                self.pending.insert(page);
            });
        }
        if over_slot && !discarded.is_empty() {
            self.seal(linear, count_pages);
        }
        count_pages
    }
}

/// Discards the zero pages of `span` and appends which those were, run by run.
fn discard_span(
    uffd: &Userfaultfd,
    span: Span<'_>,
    over_slot: bool,
    discarded: &mut Vec<(u32, u32)>,
) -> io::Result<()> {
    let mut protected = Protected::new(uffd, span)?;
    let zero: Vec<bool> =
        (0..span.count_pages()).map(|page| is_zero(protected.page(page))).collect();
    let mut first = 0;
    for alike in zero.chunk_by(|one, other| one == other) {
        let len = count(alike.len());
        if alike[0] {
            if over_slot {
                protected.map_anonymous(first, len)?;
            } else {
                protected.discard(first, len)?;
            }
            discarded.push((first, len));
        }
        first += len;
    }
    Ok(())
}
