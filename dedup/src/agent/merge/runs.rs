//! What is to become of pages, cut into runs that are handled at once, and windows that are
//! protected at once.

use std::ops::Range;

use crate::extents::{Extent, ExtentMap};
use crate::id_set::IdSet;
use crate::page_range::PageRange;
use crate::protocol::Outcome;
use crate::types::count;
use crate::{LinearIndex, Slot};

/// Pages that are write-protected together at most: with [`MAX_WINDOW_RUNS`] a bound on how long a
/// writer can sleep.
pub(super) const MAX_WINDOW_PAGES: u32 = 512;

/// Runs that are handled under one protection at most.
const MAX_WINDOW_RUNS: usize = 64;

/// Pages between two runs of a window at most. They are protected for nothing, and a guest faults
/// when it next writes one, but protecting each run by itself costs it more.
const MAX_GAP_PAGES: u32 = 8;

/// What a page is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Want {
    /// A sharer of this slot.
    Share(Slot),
    /// A page of zeroes that takes no memory.
    Zero,
}

/// A page and what it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) struct Target {
    pub(in crate::agent) linear: LinearIndex,
    pub(in crate::agent) want: Want,
}

/// How a run of pages is merged or given back, once its bytes are found to be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Action {
    /// Map it on to the slots from this one on.
    Map(Slot),
    /// It lies over just these slots: give back its private copies.
    Return(Slot),
    /// It is anonymous memory: give it back.
    Discard,
    /// It lies over slots that would show: map anonymous memory over it.
    Replace,
}

/// Consecutive pages with one action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) struct Run {
    pub(in crate::agent) linear: LinearIndex,
    pub(in crate::agent) page_count: u32,
    pub(in crate::agent) action: Action,
}

impl Run {
    /// Pages over which anonymous memory is to be mapped.
    pub(in crate::agent) fn replacing(pages: &Range<LinearIndex>) -> Self {
        let page_count = pages.page_count();
        Self { linear: pages.start, page_count, action: Action::Replace }
    }

    fn of(target: Target, extents: &ExtentMap) -> Self {
        let under = extents.slot(target.linear);
        let action = match target.want {
            Want::Share(slot) if under == Some(slot) => Action::Return(slot),
            Want::Share(slot) => Action::Map(slot),
            Want::Zero if under.is_some() => Action::Replace,
            Want::Zero => Action::Discard,
        };
        Self { linear: target.linear, page_count: 1, action }
    }

    /// One above the last page.
    pub(in crate::agent) fn end(&self) -> LinearIndex {
        self.linear.offset(self.page_count)
    }

    /// Its pages and the one on either side: all whose mappings it can part or join.
    pub(in crate::agent) fn with_neighbours(&self) -> Range<LinearIndex> {
        LinearIndex(self.linear.0.saturating_sub(1))..LinearIndex(self.end().0.saturating_add(1))
    }

    /// Its pages.
    pub(in crate::agent) fn range(&self) -> Range<LinearIndex> {
        self.linear..self.end()
    }

    /// The `page_count` pages from page `first` of this run on.
    pub(in crate::agent) fn part(&self, first: u32, page_count: u32) -> Self {
        let action = match self.action {
            Action::Map(slot) => Action::Map(slot.offset(first)),
            Action::Return(slot) => Action::Return(slot.offset(first)),
            other => other,
        };
        Self { linear: self.linear.offset(first), page_count, action }
    }

    /// The slots it goes to, as an extent.
    pub(in crate::agent) fn extent(&self) -> Option<Extent> {
        match self.action {
            Action::Map(slot) | Action::Return(slot) => {
                Some(Extent { linear: self.linear, slot, page_count: self.page_count })
            }
            Action::Discard | Action::Replace => None,
        }
    }

    /// Each page that goes to a slot, and that slot.
    pub(in crate::agent) fn shares(&self) -> impl Iterator<Item = (LinearIndex, Slot)> + use<> {
        self.extent().into_iter().flat_map(|Extent { linear, slot, page_count }| {
            (0..page_count).map(move |n| (linear.offset(n), slot.offset(n)))
        })
    }

    /// The parts of the run whose pages all go to slots of `slots`, or do not; and whether they do. O(pages).
    pub(in crate::agent) fn parts_over(&self, slots: &IdSet<Slot>) -> Vec<(Self, bool)> {
        let Some(Extent { slot, .. }) = self.extent() else { return vec![(*self, false)] };
        let is_over = |&page: &u32| slots.contains(&slot.offset(page));
        let pages: Vec<u32> = (0..self.page_count).collect();
        let parts = pages.chunk_by(|one, next| is_over(one) == is_over(next));
        parts.map(|part| (self.part(part[0], count(part.len())), is_over(&part[0]))).collect()
    }

    /// Whether it gets a new mapping.
    pub(in crate::agent) fn is_mapped(&self) -> bool {
        matches!(self.action, Action::Map(_) | Action::Replace)
    }

    /// Whether `next` continues this run.
    fn continues(&self, next: &Self) -> bool {
        let slots_continue = match (self.action, next.action) {
            (Action::Map(slot), Action::Map(next))
            | (Action::Return(slot), Action::Return(next)) => slot.offset(self.page_count) == next,
            (one, other) => one == other,
        };
        self.end() == next.linear && slots_continue
    }
}

/// What is reported of a page that cannot share the slot that it was to share.
pub(in crate::agent) fn declined((linear, slot): (LinearIndex, Slot)) -> Outcome {
    Outcome::Declined { linear, slot }
}

/// What is reported of one that is not mapped to its slot for want of mappings.
pub(in crate::agent) fn deferred((linear, slot): (LinearIndex, Slot)) -> Outcome {
    Outcome::Deferred { linear, slot }
}

/// What is reported of one that is the rest of a run, of which a part is.
pub(in crate::agent) fn deferred_for_retry((linear, slot): (LinearIndex, Slot)) -> Outcome {
    Outcome::DeferredForRetry { linear, slot }
}

/// Cuts targets, ascending by page, into maximal runs.
pub(super) fn cut(targets: impl IntoIterator<Item = Target>, extents: &ExtentMap) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for target in targets {
        let next = Run::of(target, extents);
        match runs.last_mut() {
            Some(run) if run.page_count < MAX_WINDOW_PAGES && run.continues(&next) => {
                run.page_count += 1;
            }
            _ => runs.push(next),
        }
    }
    runs
}

/// Groups runs, ascending, that lie near each other.
pub(super) fn windows(runs: &[Run]) -> impl Iterator<Item = &[Run]> {
    let mut rest = runs;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let mut len = 1;
        while let (Some(last), Some(next)) = (rest.get(len - 1), rest.get(len))
            && len < MAX_WINDOW_RUNS
            && next.linear.0 - last.end().0 <= MAX_GAP_PAGES
            && next.end().0 - first.linear.0 <= MAX_WINDOW_PAGES
        {
            len += 1;
        }
        let (window, others) = rest.split_at(len);
        rest = others;
        Some(window)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(linear: u32, slot: u32) -> Target {
        Target { linear: LinearIndex(linear), want: Want::Share(Slot(slot)) }
    }

    fn run(linear: u32, page_count: u32, action: Action) -> Run {
        Run { linear: LinearIndex(linear), page_count, action }
    }

    #[test]
    fn runs_end_where_pages_slots_or_actions_do() {
        let mut extents = ExtentMap::default();
        let extent = Extent { linear: LinearIndex(4), slot: Slot(24), page_count: 1 };
        extents.insert(extent, |_| {});
        extents.insert(Extent { linear: LinearIndex(11), ..extent }, |_| {});
        let zero = |linear| Target { linear: LinearIndex(linear), want: Want::Zero };
        let mut targets: Vec<Target> =
            [(1, 21), (2, 22), (3, 23), (4, 24), (5, 25), (7, 26), (8, 40)]
                .map(|(linear, slot)| share(linear, slot))
                .to_vec();
        targets.extend([9, 10, 11, 12].map(zero));
        let runs = cut(targets, &extents);
        let expected = [
            run(1, 3, Action::Map(Slot(21))),
            run(4, 1, Action::Return(Slot(24))),
            run(5, 1, Action::Map(Slot(25))),
            run(7, 1, Action::Map(Slot(26))),
            run(8, 1, Action::Map(Slot(40))),
            run(9, 2, Action::Discard),
            run(11, 1, Action::Replace),
            run(12, 1, Action::Discard),
        ];
        assert_eq!(runs, expected);
    }

    #[test]
    fn no_run_is_longer_than_a_writer_should_sleep() {
        let targets = (0..=MAX_WINDOW_PAGES).map(|n| share(n, n));
        let lengths: Vec<u32> =
            cut(targets, &ExtentMap::default()).iter().map(|run| run.page_count).collect();
        assert_eq!(lengths, [MAX_WINDOW_PAGES, 1]);
    }

    #[test]
    fn windows_hold_near_runs_up_to_their_limits() {
        let lengths = |runs: &[Run]| windows(runs).map(<[Run]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(&[]), [0; 0]);
        let single = |linear| run(linear, 1, Action::Discard);
        let far = 1 + MAX_GAP_PAGES + 1;
        assert_eq!(lengths(&[single(0), single(far - 1), single(2 * far - 1)]), [2, 1]);
        let many: Vec<Run> = (0..65).map(|n| single(2 * n)).collect();
        assert_eq!(lengths(&many), [MAX_WINDOW_RUNS, 1]);
        let long = [run(0, 500, Action::Discard), run(501, 12, Action::Discard)];
        assert_eq!(lengths(&long), [1, 1]);
    }
}
