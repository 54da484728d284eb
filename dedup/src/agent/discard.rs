//! Giving a range of guest memory up: what a balloon, a free-page report and unplugged memory ask
//! for.

use std::ops::Range;

use super::changes::{count, linear_index};
use super::merge::more_vmas_with;
use super::runs::{Action, Run};
use super::{Agent, AgentError};
use crate::protocol::{Broker, Outcome};

/// What became of pages that were to be given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiscardReport {
    /// Pages that read as zeroes and take no memory now.
    pub discarded_pages: u64,
    /// Pages that are as they were, because it would have taken more mappings than the budget has,
    /// or because the kernel refused.
    pub kept_pages: u64,
}

impl Agent {
    /// Takes pages out of the trees and off their slots and gives their memory back; they read as
    /// zeroes until they are written. Their bytes are lost, and so is what is written to them
    /// meanwhile. O(extents in the range + pages).
    ///
    /// # Errors
    ///
    /// When the broker fails; the pages are discarded all the same.
    pub(crate) fn discard(
        &mut self,
        broker: &mut dyn Broker,
        pages: Range<usize>,
    ) -> Result<DiscardReport, AgentError> {
        // Those that go as a whole need not be split.
        if !pages.is_empty() {
            self.split_huge_pages(pages.start..pages.start + 1);
            self.split_huge_pages(pages.end - 1..pages.end);
        }
        let mut discarded = Vec::new();
        for part in self.affordable(pages.clone()) {
            self.map_anew(part, &mut discarded);
        }
        let (linear, count_pages) = (linear_index(pages.start), count(pages.len()));
        if count_pages > 0 {
            self.seal(linear, count_pages);
        }
        let discarded_pages = discarded.iter().map(|part| part.len() as u64).sum();
        let mut outcomes = Vec::new();
        for part in discarded {
            self.forget(part, &mut outcomes);
        }
        self.account_mappings();
        self.say(broker, outcomes)?;
        Ok(DiscardReport { discarded_pages, kept_pages: pages.len() as u64 - discarded_pages })
    }

    /// The parts of a range that may be mapped anew: all of it, or, where that would part mappings
    /// when there are none to spare, what does not lie over slots.
    fn affordable(&self, pages: Range<usize>) -> Vec<Range<usize>> {
        if pages.is_empty() {
            return Vec::new();
        }
        let run = Run {
            linear: linear_index(pages.start),
            count_pages: count(pages.len()),
            action: Action::Replace,
        };
        let more = more_vmas_with(&self.space, &mut self.extents.clone(), &run);
        if more <= 0 || self.budget.min_run_pages(more) != u32::MAX {
            return vec![pages];
        }
        let mut parts = Vec::new();
        let mut next = pages.start;
        for extent in self.extents.overlapping(run.linear, run.end()) {
            let first = extent.linear.0 as usize;
            if next < first {
                parts.push(next..first);
            }
            next = first + extent.count_pages as usize;
        }
        if next < pages.end {
            parts.push(next..pages.end);
        }
        parts
    }

    /// Maps fresh memory over pages, and notes those for which it was done.
    fn map_anew(&mut self, pages: Range<usize>, done: &mut Vec<Range<usize>>) {
        let mut next = pages.start;
        while next < pages.end {
            let span = self.space.span(linear_index(next), count(pages.end - next));
            let end = next + span.count_pages() as usize;
            match span.map_anonymous() {
                Ok(()) => done.push(next..end),
                Err(error) => {
                    log::debug!("VM {}: cannot discard {} pages: {error}", self.vm, end - next);
                    self.events.errors += 1;
                }
            }
            next = end;
        }
    }

    /// Drops what is known of pages that have fresh memory now.
    fn forget(&mut self, pages: Range<usize>, outcomes: &mut Vec<Outcome>) {
        for placed in [&self.shared, &self.waiting] {
            let left = placed.runs_within(pages.clone()).flatten();
            outcomes.extend(left.map(|page| Outcome::Left { linear: linear_index(page) }));
        }
        let (linear, count_pages) = (linear_index(pages.start), count(pages.len()));
        outcomes.push(Outcome::Unbacked { linear, count_pages });
        self.extents.remove(linear, count_pages, |_| {});
        let sets = [
            &mut self.shared,
            &mut self.zero,
            &mut self.waiting,
            &mut self.pending,
            &mut self.deferred,
            &mut self.todo,
        ];
        for set in sets {
            set.remove_range(pages.clone());
        }
    }
}
