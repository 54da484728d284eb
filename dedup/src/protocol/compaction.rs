//! How far a compaction has come: kept by the caller, and passed with each call.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::id_set::IdSet;
use crate::{LinearIndex, Slot};

/// Which slots are to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CompactScope {
    /// Those whose move saves mappings.
    #[default]
    Gainful,
    /// Those whose move does not cost any.
    All,
}

/// How far the compaction of one VM has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactCursor {
    /// The first page that has not been looked at.
    pub(crate) next: LinearIndex,
    /// Slots that were moved to.
    pub(crate) taken: IdSet<Slot>,
    /// The group that was found last, until it is known whether it is to be moved.
    pub(crate) candidate: Option<Candidate>,
    /// Pages that were looked at, and sharers that were counted, since this was last taken.
    pub(crate) work: u32,
}

/// Slots that may be moved together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Candidate {
    pub(crate) group: Vec<Slot>,
    /// Their places in it.
    pub(crate) order: HashMap<Slot, usize>,
    /// Slots of which it has been counted what moving them saves.
    pub(crate) counted: usize,
    /// Mappings that this is.
    pub(crate) gain: i64,
}

impl Candidate {
    /// Adds a slot; returns whether it was not there yet.
    pub(crate) fn add(&mut self, slot: Slot) -> bool {
        let number = self.group.len();
        let is_new = *self.order.entry(slot).or_insert(number) == number;
        if is_new {
            self.group.push(slot);
        }
        is_new
    }
}

impl CompactCursor {
    /// Goes to another VM of the same domain.
    pub fn rewind(&mut self) {
        self.next = LinearIndex(0);
        self.candidate = None;
    }

    /// Whether the next call counts mappings saved and added, for which it takes the pages that are apart.
    pub fn is_counting(&self) -> bool {
        self.candidate.as_ref().is_some_and(|found| found.counted < found.group.len())
    }

    /// Counts pages that were looked at, or sharers that were counted.
    pub(crate) fn count_work(&mut self, work: u32) {
        self.work = self.work.saturating_add(work);
    }

    /// Takes the count of pages that were looked at, and of sharers that were counted, since the last call.
    pub(crate) fn take_work(&mut self) -> u32 {
        std::mem::take(&mut self.work)
    }
}
