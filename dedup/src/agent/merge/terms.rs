//! What is known of targets beyond where they are to go: which fill their slots, and what has been paid for.

use super::runs::Run;
use crate::{LinearIndex, Slot};

/// A page that is to fill a new slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Creator {
    pub(super) linear: LinearIndex,
    pub(super) slot: Slot,
    /// Whether its first partner lies in one run with that of the creator before.
    pub(super) continues: bool,
}

/// What is known of some targets beyond where they are to go. Both lists ascend.
#[derive(Debug, Clone, Default)]
pub(in crate::agent) struct Terms {
    /// Those that are to fill their slot first.
    pub(super) creators: Vec<Creator>,
    /// Those for which mappings have been set aside, because their twin was merged for them.
    pub(super) awaited: Vec<LinearIndex>,
}

impl Terms {
    /// The pages of a run with whose first partner a run of the partners' begins.
    pub(in crate::agent) fn partner_runs(
        &self,
        run: &Run,
    ) -> impl Iterator<Item = LinearIndex> + '_ {
        let begun =
            self.creators_in(run).enumerate().filter(|(n, creator)| *n == 0 || !creator.continues);
        begun.map(|(_, creator)| creator.linear)
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

    /// Whether a page of a run is awaited.
    pub(in crate::agent) fn awaits(&self, run: &Run) -> bool {
        let first = self.awaited.partition_point(|&linear| linear < run.linear);
        self.awaited.get(first).is_some_and(|&linear| linear < run.end())
    }
}
