//! Pages that were written out to swap while they waited for a twin.
//!
//! Comparing one under protection would read it in, and whoever writes near it would sleep for as long as
//! the disk takes. So it is not folded before it is in memory again, and what it is compared with is read
//! in first.

use super::changes::linear_index;
use super::merge::declined;
use super::runs::{Target, Want};
use super::{Agent, AgentError};
use crate::LinearIndex;
use crate::protocol::Outcome;
use crate::sys::{PageKind, has_swap};

impl Agent {
    /// Leaves out those of the targets, ascending, that are swapped out, and has the slots of the others be in memory.
    /// O(1) where nothing is ever swapped.
    ///
    /// # Errors
    ///
    /// When the kernel does not say what is there.
    pub(super) fn leave_out_swapped(
        &mut self,
        targets: &mut Vec<Target>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), AgentError> {
        if !has_swap() {
            return Ok(());
        }
        let mut swapped: Vec<LinearIndex> = Vec::new();
        let pages = targets.iter().map(|target| target.linear.0 as usize);
        self.scan_runs(pages.map(|page| page..page + 1), |pages, kind| {
            if kind == PageKind::Swapped {
                swapped.extend(pages.map(linear_index));
            }
        })?;
        let is_swapped = |target: &mut Target| swapped.binary_search(&target.linear).is_ok();
        for Target { linear, want } in targets.extract_if(.., is_swapped) {
            let page = linear.0 as usize;
            self.waiting.remove(page);
            if !self.shared.contains(page) {
                self.pending.insert(page);
            }
            if let Want::Share(slot) = want {
                self.events.declines += 1;
                outcomes.push(declined((linear, slot)));
            }
        }
        for target in targets {
            if let Want::Share(slot) = target.want {
                self.store.view.touch(slot);
            }
        }
        Ok(())
    }
}
