//! Checks of an agent's sets of pages against each other.

use std::ops::Range;

use crate::LinearIndex;
use crate::agent::Agent;
use crate::mode::DedupMode;
use crate::page_set::PageSet;

impl Agent {
    /// What is wrong with the sets, if anything is: a page is in at most one of those that hold its
    /// state; what is to be looked at is dirty; and what is not to be folded is not, unless that is still
    /// to be undone. O(pages / 64).
    pub(super) fn find_contradiction(&self) -> Option<String> {
        let states = [
            ("shared", &self.shared),
            ("zero", &self.zero),
            ("offered", &self.offered),
            ("dirty", &self.dirty),
            ("deferred", &self.deferred),
        ];
        let others = [
            &self.undrained_dirty,
            &self.visit.scan_set,
            &self.backlog.changed_since_mark,
            &self.backlog.unmarked,
        ];
        let optional = [&self.excluded, &self.huge];
        let sets = states.iter().map(|(_, set)| *set).chain(others);
        let page_count = self.space.page_count();
        for set in sets.chain(optional.into_iter().flatten()) {
            if set.page_count() != page_count {
                return Some(format!("a set of {} of {page_count} pages", set.page_count()));
            }
        }
        let whole = self.range();
        for (number, (name, set)) in states.iter().enumerate() {
            for (other_name, other) in &states[number + 1..] {
                if let Some(page) = first_of_both(set, other, whole.clone()) {
                    return Some(format!("page {page} is {name} and {other_name}"));
                }
            }
        }
        let mut lost = self.visit.scan_set.clone();
        lost.subtract(&self.dirty);
        lost.remove_range(whole.start..self.visit.cursor.min(whole.end));
        if let Some(page) = lost.iter().next() {
            return Some(format!("page {page} is to be looked at, and is not dirty"));
        }
        let excluded = self.excluded.as_ref();
        let looked_at =
            excluded.and_then(|set| first_of_both(set, &self.visit.scan_set, whole.clone()));
        if let Some(page) = looked_at {
            return Some(format!("page {page} is to be looked at, and is excluded"));
        }
        if self.has_unwanted {
            return None;
        }
        for (name, set) in &states[..3] {
            let folded = excluded.and_then(|excluded| first_of_both(excluded, set, whole.clone()));
            if let Some(page) = folded {
                return Some(format!("page {page} is {name} and excluded"));
            }
            let is_off = match self.mode {
                DedupMode::On => false,
                DedupMode::Zero => *name != "zero",
                DedupMode::Off => true,
            };
            if let Some(page) = set.iter().next().filter(|_| is_off) {
                return Some(format!("page {page} is {name} in a VM that is not to be folded so"));
            }
        }
        None
    }
}

/// The first page in a range that is in both sets.
fn first_of_both(
    one: &PageSet,
    other: &PageSet,
    within: Range<LinearIndex>,
) -> Option<LinearIndex> {
    one.runs_within(within).find_map(|run| other.runs_within(run).next()).map(|run| run.start)
}

#[cfg(test)]
mod tests;
