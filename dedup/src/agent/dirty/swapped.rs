//! Pages that were written out to swap while they waited for a twin.
//!
//! Comparing one under protection would read it in, and whoever writes near it would sleep for as long as
//! the disk takes. So it is not folded before it is in memory again, and what pages are compared with is
//! read in first.

use crate::LinearIndex;
use crate::agent::merge::runs::{Run, Target, Want, declined};
use crate::agent::{Agent, AgentError};
use crate::page_range::PageRange;
use crate::protocol::Outcome;
use crate::sys::{PageKind, has_swap};

impl Agent {
    /// Leaves out those of the targets, ascending, that are swapped out. O(1) where nothing is ever swapped.
    ///
    /// # Errors
    ///
    /// When the page map cannot be read.
    pub(in crate::agent) fn leave_out_swapped(
        &mut self,
        targets: &mut Vec<Target>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), AgentError> {
        if !has_swap() {
            return Ok(());
        }
        let mut swapped: Vec<LinearIndex> = Vec::new();
        self.scan_runs(targets.iter().map(|target| target.linear.run(1)), |pages, kind| {
            if kind == PageKind::Swapped {
                swapped.extend(pages.pages());
            }
        })?;
        let is_swapped = |target: &mut Target| swapped.binary_search(&target.linear).is_ok();
        for Target { linear, want } in targets.extract_if(.., is_swapped) {
            self.offered.remove(linear);
            if !self.shared.contains(linear) {
                self.dirty.insert(linear);
            }
            if let Want::Share(slot) = want {
                self.events.declines += 1;
                outcomes.push(declined((linear, slot)));
            }
        }
        Ok(())
    }

    /// Reads in the slots, all of which have been filled, that runs are to be compared with. O(1) where
    /// nothing is ever swapped.
    pub(in crate::agent) fn read_slots_in(&self, runs: &[Run]) {
        if has_swap() {
            for (_, slot) in runs.iter().flat_map(Run::shares) {
                self.store.view.touch(slot);
            }
        }
    }
}
