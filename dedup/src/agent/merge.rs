//! The merge protocol: protect, compare, map, let go.
//!
//! From the moment a run is protected until it is let go, no message is sent and nothing waits on
//! anybody else, so that a writer sleeps for as long as it takes to compare and map
//! [`MAX_RUN_PAGES`](super::runs::MAX_RUN_PAGES) pages and no longer.

use std::io;

use super::Agent;
use super::changes::count;
use super::runs::{Run, Target, cut};
use super::store::StoreAccess;
use crate::LinearIndex;
use crate::extents::{Extent, ExtentMap};
use crate::protocol::Outcome;
use crate::sys::{Protected, Space, Span, Userfaultfd};

/// What became of a part of a run.
enum Step {
    /// Mapped to the slots.
    Merged(Extent),
    /// Not equal any more.
    Changed(Extent),
    /// The kernel refused.
    Refused(Extent, io::Error),
}

impl Agent {
    /// Drops the targets that the mapping budget cannot pay for, and says so in `outcomes`.
    pub(super) fn within_budget(
        &mut self,
        targets: &[Target],
        outcomes: &mut Vec<Outcome>,
    ) -> Vec<Run> {
        let mut planned = 0;
        let mut affordable = cut(targets, &self.extents);
        affordable.retain(|run| {
            let min_pages = self.budget.min_run_pages(planned);
            if run.in_place || run.extent.count_pages >= min_pages {
                planned += if run.in_place { 0 } else { 2 };
                return true;
            }
            self.deferred_at = self.deferred_at.min(min_pages);
            for Target { linear, slot } in run.targets() {
                self.events.budget_skips += 1;
                self.deferred.insert(linear.0 as usize);
                outcomes.push(Outcome::Declined { linear, slot });
            }
            false
        });
        affordable
    }

    /// Merges runs, in ascending order, and says what became of each page in `outcomes`.
    pub(super) fn merge(&mut self, runs: &[Run], outcomes: &mut Vec<Outcome>) {
        for run in runs {
            let mut next = 0;
            // A run of linear indexes may cross from one region to the next.
            while next < run.extent.count_pages {
                let linear = run.extent.linear.offset(next);
                let span = self.space.span(linear, run.extent.count_pages - next);
                let extent = Extent {
                    linear,
                    slot: run.extent.slot.offset(next),
                    count_pages: span.count_pages(),
                };
                let part = Run { extent, in_place: run.in_place };
                next += extent.count_pages;
                for step in merge_span(&self.uffd, &self.store, span, &part) {
                    self.record(step, run.in_place, outcomes);
                }
            }
        }
        let mut mapped = runs.iter().filter(|run| !run.in_place).map(|run| run.extent);
        if let Some(first) = mapped.next() {
            let last = mapped.next_back().unwrap_or(first);
            self.seal(first.linear, last.linear.0 + last.count_pages - first.linear.0);
        }
    }

    fn record(&mut self, step: Step, in_place: bool, outcomes: &mut Vec<Outcome>) {
        let (run, merged) = match step {
            Step::Merged(run) => (run, true),
            Step::Changed(run) => {
                self.events.declines += u64::from(run.count_pages);
                (run, false)
            }
            Step::Refused(run, error) => {
                log::debug!("VM {}: cannot merge {} pages: {error}", self.vm, run.count_pages);
                self.events.errors += 1;
                (run, false)
            }
        };
        let pages = run.linear.0 as usize..(run.linear.0 + run.count_pages) as usize;
        self.waiting.remove_range(pages.clone());
        if !merged {
            self.pending.insert_range(pages);
            let declined = Run { extent: run, in_place };
            outcomes.extend(
                declined
                    .targets()
                    .map(|Target { linear, slot }| Outcome::Declined { linear, slot }),
            );
            return;
        }
        self.shared.insert_range(pages.clone());
        self.pending.remove_range(pages);
        if in_place {
            self.events.remerges += u64::from(run.count_pages);
        } else {
            self.events.merges += u64::from(run.count_pages);
            self.extents.insert(run, |_| {});
        }
        outcomes.push(Outcome::Merged(run));
    }

    /// Marks what was mapped into `count_pages` pages from `linear` on as guest memory and has the
    /// userfaultfd cover it, so that it can be protected when its pages are merged again. One
    /// system call for all, which also lets the kernel join neighbouring mappings.
    pub(super) fn seal(&mut self, linear: LinearIndex, count_pages: u32) {
        let mut next = 0;
        while next < count_pages {
            let span = self.space.span(linear.offset(next), count_pages - next);
            if let Err(error) = span.advise_guest().and_then(|()| self.uffd.register(span)) {
                // Its pages cannot be protected, so they stay as they are until this succeeds.
                log::warn!("VM {}: cannot mark merged memory: {error}", self.vm);
                self.events.errors += 1;
            }
            next += span.count_pages();
        }
        self.account_mappings();
    }

    /// Brings the budget up to date with the mappings that the extents make.
    pub(super) fn account_mappings(&mut self) {
        let vmas = count_vmas(&self.space, &self.extents);
        self.budget.update(self.vmas, vmas);
        self.vmas = vmas;
    }
}

/// How many mappings the kernel keeps for a VM's memory.
fn count_vmas(space: &Space, extents: &ExtentMap) -> u64 {
    let vmas = space.regions().iter().map(|region| {
        extents.count_vmas(region.linear, region.linear.offset(region.count_pages)) as u64
    });
    vmas.sum()
}

fn merge_span(uffd: &Userfaultfd, store: &StoreAccess, span: Span<'_>, run: &Run) -> Vec<Step> {
    let extent = run.extent;
    let part = |first: u32, count_pages: u32| Extent {
        linear: extent.linear.offset(first),
        slot: extent.slot.offset(first),
        count_pages,
    };
    let mut protected = match Protected::new(uffd, span) {
        Ok(protected) => protected,
        Err(error) => return vec![Step::Refused(extent, error)],
    };
    let equal: Vec<bool> = (0..extent.count_pages)
        .map(|page| store.view.equals(extent.slot.offset(page), protected.page(page)))
        .collect();
    let mut steps = Vec::new();
    let mut first = 0;
    for pages in equal.chunk_by(|one, other| one == other) {
        let sub_run = part(first, count(pages.len()));
        steps.push(if pages[0] {
            let result = if run.in_place {
                protected.discard(first, sub_run.count_pages)
            } else {
                protected.map_slots(first, sub_run.count_pages, &store.memfd, sub_run.slot)
            };
            match result {
                Ok(()) => Step::Merged(sub_run),
                Err(error) => Step::Refused(sub_run, error),
            }
        } else {
            Step::Changed(sub_run)
        });
        first += sub_run.count_pages;
    }
    steps
}
