//! Execution of targets: slots are filled, runs are merged, and the outcomes are reported.

use super::runs::{Run, Target, cut, declined};
use super::terms::{Creator, Terms};
use crate::agent::{Agent, AgentError};
use crate::id_set::IdSet;
use crate::protocol::{Broker, BrokerError, Outcome};
use crate::{ErrorChain, LinearIndex, PAGE_SIZE, Slot};

/// Pages whose bytes are handed over for new slots in one message.
const FILL_PAGES: usize = 512;

impl Agent {
    /// Has targets, ascending, be what they are to be, as far as the budget allows and they still
    /// can, and reports their outcomes, after `outcomes`. The slots of creators are filled first.
    pub(in crate::agent) fn execute(
        &mut self,
        broker: &mut dyn Broker,
        mut targets: Vec<Target>,
        terms: &Terms,
        mut outcomes: Vec<Outcome>,
    ) -> Result<(), AgentError> {
        if let Err(error) = self.leave_out_swapped(&mut targets, &mut outcomes) {
            self.leave_undone(&cut(targets, &self.extents), outcomes);
            return Err(error);
        }
        let mut runs = cut(targets, &self.extents);
        self.within_budget(&mut runs, terms, &mut outcomes);
        let empty = match self.fill(broker, &runs, &terms.creators) {
            Ok(empty) => empty,
            Err(error) => {
                self.leave_undone(&runs, outcomes);
                return Err(error);
            }
        };
        if !empty.is_empty() {
            runs = self.without(&runs, &empty, &mut outcomes);
        }
        self.read_slots_in(&runs);
        self.merge(&runs, &mut outcomes);
        self.report(broker, outcomes)
    }

    /// Has it be reported, when the broker works again, that none of the runs was merged.
    fn leave_undone(&mut self, runs: &[Run], mut outcomes: Vec<Outcome>) {
        outcomes.extend(runs.iter().flat_map(Run::shares).map(declined));
        self.unreported.append(&mut outcomes);
    }

    /// Hands over the bytes for the slots of those `creators` (ascending) that are still part of
    /// `runs`, and returns the new slots that hold nothing: the budget did not allow for the page,
    /// or it had changed.
    fn fill(
        &mut self,
        broker: &mut dyn Broker,
        runs: &[Run],
        creators: &[Creator],
    ) -> Result<IdSet<Slot>, AgentError> {
        let mut empty: IdSet<Slot> = creators.iter().map(|creator| creator.slot).collect();
        let is_creator = |(linear, _): &(LinearIndex, Slot)| {
            creators.binary_search_by_key(linear, |creator| creator.linear).is_ok()
        };
        let fills: Vec<(LinearIndex, Slot)> =
            runs.iter().flat_map(Run::shares).filter(is_creator).collect();
        self.work.filled_pages += fills.len() as u64;
        let (mut bytes, mut accepted) = (Vec::new(), Vec::new());
        let neighbours =
            |one: &(LinearIndex, Slot), next: &(LinearIndex, Slot)| one.1.offset(1) == next.1;
        for batch in fills.chunk_by(neighbours).flat_map(|batch| batch.chunks(FILL_PAGES)) {
            bytes.resize(batch.len() * PAGE_SIZE, 0);
            for (&(linear, _), page) in batch.iter().zip(bytes.as_chunks_mut().0) {
                self.space.span(linear, 1).copy_page(0, page);
            }
            accepted.clear();
            match broker.fill(self.vm, batch[0].1, &bytes, &mut accepted) {
                Err(error @ BrokerError::Store(_)) => {
                    log::warn!("VM {}: cannot share pages: {}", self.vm, ErrorChain::new(&error));
                    self.events.errors += 1;
                }
                result => result?,
            }
            for ((_, slot), _) in batch.iter().zip(&accepted).filter(|(_, accepted)| **accepted) {
                empty.remove(slot);
            }
        }
        Ok(empty)
    }

    /// The runs without the pages that were to share slots that hold nothing.
    fn without(
        &mut self,
        runs: &[Run],
        empty: &IdSet<Slot>,
        outcomes: &mut Vec<Outcome>,
    ) -> Vec<Run> {
        let mut kept = Vec::new();
        for (run, is_gone) in runs.iter().flat_map(|run| run.parts_over(empty)) {
            if is_gone {
                self.events.declines += u64::from(run.page_count);
                self.note_work(run.range());
                self.dirty.insert_range(run.range());
                outcomes.extend(run.shares().map(declined));
            } else {
                kept.push(run);
            }
        }
        kept
    }
}
