//! Which work is next.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Work;

/// One thread for a device, while it has work.
pub(super) struct Turn {
    pub(super) work: Arc<dyn Work>,
    /// Whether the device had others when it was added.
    pub(super) is_further: bool,
}

/// Turns in the order in which they were added, but that few of the further ones are taken at a time.
#[derive(Default)]
pub(super) struct Turns {
    first: VecDeque<Turn>,
    further: VecDeque<Turn>,
    /// Further ones that threads have now.
    further_taken: usize,
    max_further_taken: usize,
}

impl Turns {
    /// None yet, and so many of the further ones are taken at most.
    pub(super) fn new(max_further_taken: usize) -> Self {
        Self { max_further_taken, ..Self::default() }
    }

    pub(super) fn add(&mut self, turn: Turn) {
        let turns = if turn.is_further { &mut self.further } else { &mut self.first };
        turns.push_back(turn);
    }

    /// How many could be taken now.
    pub(super) fn takeable(&self) -> usize {
        self.first.len() + self.further.len().min(self.max_further_taken - self.further_taken)
    }

    pub(super) fn take(&mut self) -> Option<Turn> {
        if let Some(turn) = self.first.pop_front() {
            return Some(turn);
        }
        if self.further_taken == self.max_further_taken {
            return None;
        }
        let turn = self.further.pop_front()?;
        self.further_taken += 1;
        Some(turn)
    }

    /// Takes note that a thread has done with one that it took.
    pub(super) fn give_back(&mut self, turn: &Turn) {
        self.further_taken -= usize::from(turn.is_further);
    }
}
