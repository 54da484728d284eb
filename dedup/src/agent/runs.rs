//! Pages that are to go to slots, cut into the runs that are protected and mapped at once.

use crate::extents::{Extent, ExtentMap};
use crate::{LinearIndex, Slot};

/// Pages that are write-protected together at most: a bound on how long a writer can sleep.
pub(super) const MAX_RUN_PAGES: u32 = 512;

/// A page and the slot that it is to share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) linear: LinearIndex,
    pub(super) slot: Slot,
}

/// Consecutive pages that are to go to consecutive slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) extent: Extent,
    /// Whether the pages lie over just those slots already, so that giving back their private
    /// copies is all there is to do.
    pub(super) in_place: bool,
}

impl Run {
    /// The pages one by one.
    pub(super) fn targets(&self) -> impl Iterator<Item = Target> + use<> {
        let Extent { linear, slot, count_pages } = self.extent;
        (0..count_pages).map(move |n| Target { linear: linear.offset(n), slot: slot.offset(n) })
    }
}

/// Cuts targets, ascending by page, into maximal runs.
pub(super) fn cut(targets: &[Target], extents: &ExtentMap) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &Target { linear, slot } in targets {
        let in_place = extents.slot(linear) == Some(slot);
        if let Some(Run { extent, in_place: before }) = runs.last_mut()
            && *before == in_place
            && extent.count_pages < MAX_RUN_PAGES
            && extent.linear.offset(extent.count_pages) == linear
            && extent.slot.offset(extent.count_pages) == slot
        {
            extent.count_pages += 1;
        } else {
            runs.push(Run { extent: Extent { linear, slot, count_pages: 1 }, in_place });
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(linear: u32, slot: u32, count_pages: u32, in_place: bool) -> Run {
        let extent = Extent { linear: LinearIndex(linear), slot: Slot(slot), count_pages };
        Run { extent, in_place }
    }

    #[test]
    fn runs_end_where_pages_slots_or_mappings_do() {
        let mut extents = ExtentMap::default();
        extents.insert(run(4, 24, 1, true).extent, |_| {});
        let targets = [(1, 21), (2, 22), (3, 23), (4, 24), (5, 25), (7, 26), (8, 40)]
            .map(|(linear, slot)| Target { linear: LinearIndex(linear), slot: Slot(slot) });
        let runs = cut(&targets, &extents);
        let expected = [
            run(1, 21, 3, false),
            run(4, 24, 1, true),
            run(5, 25, 1, false),
            run(7, 26, 1, false),
            run(8, 40, 1, false),
        ];
        assert_eq!(runs, expected);
        assert!(runs.iter().flat_map(Run::targets).eq(targets));
    }

    #[test]
    fn no_run_is_longer_than_a_writer_should_sleep() {
        let targets: Vec<Target> =
            (0..=MAX_RUN_PAGES).map(|n| Target { linear: LinearIndex(n), slot: Slot(n) }).collect();
        let lengths: Vec<u32> =
            cut(&targets, &ExtentMap::default()).iter().map(|run| run.extent.count_pages).collect();
        assert_eq!(lengths, [MAX_RUN_PAGES, 1]);
    }
}
