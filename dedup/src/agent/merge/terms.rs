//! What is known of targets beyond where they are to go: which fill their slots, and what has been paid for.

use super::runs::Run;
use crate::id_set::IdSet;
use crate::{LinearIndex, Slot};

/// A page that is to fill a new slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Creator {
    pub(super) linear: LinearIndex,
    pub(super) slot: Slot,
    /// How many other pages are to share the slot, and how many of them do not lie in one run with a partner of
    /// the creator before.
    pub(super) partners: u32,
    pub(super) apart: u32,
    /// Whether the creator before has filled the slot before, and shares it.
    pub(super) goes_on: bool,
}

/// What is known of some targets beyond where they are to go. The lists ascend.
#[derive(Debug, Clone, Default)]
pub(in crate::agent) struct Terms {
    /// Those that are to fill their slot first.
    pub(super) creators: Vec<Creator>,
    /// Those for which who filled the slot has pledged mappings.
    pub(super) awaited: Vec<LinearIndex>,
    /// Whether it is known that all are worth the mappings that they cost, of all VMs together.
    pub(in crate::agent) is_worth_it: bool,
}

impl Terms {
    /// The pages of a run that are to fill slots, each with how many runs of partners begin there.
    pub(in crate::agent) fn partner_runs(
        &self,
        run: &Run,
    ) -> impl Iterator<Item = (LinearIndex, u32)> + '_ {
        self.creators_in(run).enumerate().map(|(number, creator)| {
            let begins = number == 0 && !creator.goes_on;
            (creator.linear, if begins { creator.partners } else { creator.apart })
        })
    }

    /// The pages that share slots with those of a run that are to fill them.
    pub(in crate::agent) fn partner_count(&self, run: &Run) -> u64 {
        self.creators_in(run).map(|creator| u64::from(creator.partners)).sum()
    }

    /// The slots that pages of a run are to fill.
    pub(in crate::agent) fn slots_of(&self, run: &Run) -> impl Iterator<Item = Slot> + '_ {
        self.creators_in(run).map(|creator| creator.slot)
    }

    fn creators_in(&self, run: &Run) -> impl Iterator<Item = &Creator> + '_ {
        let end = run.end();
        let first = self.creators.partition_point(|creator| creator.linear < run.linear);
        self.creators[first..].iter().take_while(move |one| one.linear < end)
    }

    /// Parts runs that have both pages that are awaited and pages that are to fill slots: whether the latter can be
    /// paid for is nothing to the former, whose mappings have been pledged. O(runs · log + pages of such runs).
    pub(in crate::agent) fn part_awaited(&self, runs: &mut Vec<Run>) {
        let is_mixed = |run: &Run| self.awaits(run) && self.creators_in(run).next().is_some();
        if runs.iter().any(is_mixed) {
            let whole = std::mem::take(runs);
            runs.extend(whole.into_iter().flat_map(|run| {
                let slots =
                    if is_mixed(&run) { self.slots_of(&run).collect() } else { IdSet::default() };
                run.parts_over(&slots).into_iter().map(|(part, _)| part)
            }));
        }
    }

    /// Whether a page of a run is awaited.
    pub(in crate::agent) fn awaits(&self, run: &Run) -> bool {
        let first = self.awaited.partition_point(|&linear| linear < run.linear);
        self.awaited.get(first).is_some_and(|&linear| linear < run.end())
    }
}
