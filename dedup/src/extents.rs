//! Which pages of a VM lie over which slots, run by run.
//!
//! A run here is what the kernel keeps as one VMA: consecutive pages on consecutive slots. That a
//! page lies *over* a slot does not mean that it shares it: a page that was written has its own
//! copy and keeps the mapping, which is what lets it go back without a new one.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{LinearIndex, Slot};

/// A maximal run of pages over consecutive slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The first page.
    pub linear: LinearIndex,
    /// The slot under it.
    pub slot: Slot,
    /// How many pages.
    pub page_count: u32,
}

impl Extent {
    /// One above the last page.
    pub fn end(&self) -> LinearIndex {
        self.linear.offset(self.page_count)
    }

    /// Its pages.
    pub fn range(&self) -> Range<LinearIndex> {
        self.linear..self.end()
    }

    /// The part of the extent from page `from` up to page `to`, both inside it.
    fn part(&self, from: LinearIndex, to: LinearIndex) -> Self {
        Self {
            linear: from,
            slot: self.slot.offset(from.0 - self.linear.0),
            page_count: to.0 - from.0,
        }
    }

    /// Whether `next` continues this run.
    fn continues(&self, next: &Self) -> bool {
        self.end() == next.linear && self.slot.offset(self.page_count) == next.slot
    }
}

/// The extents of one VM: disjoint, ascending, and maximal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtentMap {
    /// By first page: the slot under it and the number of pages.
    runs: BTreeMap<LinearIndex, (Slot, u32)>,
}

impl ExtentMap {
    /// The slot under a page. O(log n).
    pub fn slot(&self, linear: LinearIndex) -> Option<Slot> {
        let extent = self.at(linear)?;
        Some(extent.slot.offset(linear.0 - extent.linear.0))
    }

    /// The extent that a page is in. O(log n).
    pub fn at(&self, linear: LinearIndex) -> Option<Extent> {
        self.at_or_before(linear).filter(|extent| linear < extent.end())
    }

    /// The extents in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        self.runs.iter().map(|(&linear, &run)| extent(linear, run))
    }

    /// How many extents there are.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether no page lies over a slot.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Puts a run of pages over slots and calls `removed` with what lay under them before.
    /// O(log n + extents removed).
    pub fn insert(&mut self, run: Extent, removed: impl FnMut(Extent)) {
        if run.page_count == 0 {
            return;
        }
        self.remove(run.linear, run.page_count, removed);
        let mut merged = run;
        if let Some(before) = self.at_or_before(run.linear)
            && before.continues(&merged)
        {
            merged = Extent { page_count: before.page_count + merged.page_count, ..before };
        }
        if let Some(&after) = self.runs.get(&merged.end())
            && merged.continues(&extent(merged.end(), after))
        {
            self.runs.remove(&merged.end());
            merged.page_count += after.1;
        }
        self.runs.insert(merged.linear, (merged.slot, merged.page_count));
    }

    /// Takes pages off their slots and calls `removed` with each run that was there.
    /// O(log n + extents removed).
    pub fn remove(
        &mut self,
        linear: LinearIndex,
        page_count: u32,
        mut removed: impl FnMut(Extent),
    ) {
        let Range { start, end } = linear.run(page_count);
        if start == end {
            return;
        }
        // What begins before `start` is cut there; whatever then begins inside goes.
        if let Some(before) = self.at_or_before(start)
            && before.linear < start
            && before.end() > start
        {
            let kept = before.part(before.linear, start);
            self.runs.insert(kept.linear, (kept.slot, kept.page_count));
            let rest = before.part(start, before.end());
            self.runs.insert(start, (rest.slot, rest.page_count));
        }
        while let Some((&first, &run)) = self.runs.range(start..end).next() {
            let inside = extent(first, run);
            self.runs.remove(&first);
            if inside.end() > end {
                let rest = inside.part(end, inside.end());
                self.runs.insert(end, (rest.slot, rest.page_count));
            }
            removed(inside.part(first, inside.end().min(end)));
        }
    }

    /// The extents, or parts of them, that lie within the pages from `start` up to `end`.
    /// O(log n + extents in the range).
    pub fn overlapping(
        &self,
        start: LinearIndex,
        end: LinearIndex,
    ) -> impl Iterator<Item = Extent> + '_ {
        let first = self.at_or_before(start).map_or(start, |extent| extent.linear);
        self.runs.range(first..end).filter_map(move |(&linear, &run)| {
            let extent = extent(linear, run);
            let (from, to) = (linear.max(start), extent.end().min(end));
            (from < to).then(|| extent.part(from, to))
        })
    }

    /// The part of the map that lies in `ranges`, which may overlap.
    /// O((ranges + extents in them) · log n).
    #[must_use]
    pub fn within(&self, ranges: impl IntoIterator<Item = Range<LinearIndex>>) -> Self {
        let mut part = Self::default();
        for range in ranges {
            let extents = self.overlapping(range.start, range.end);
            extents.for_each(|extent| part.insert(extent, |_| {}));
        }
        part
    }

    /// Whether one mapping can hold a page and the one before it: both lie over consecutive slots,
    /// or over none. O(log n).
    pub fn joins(&self, linear: LinearIndex) -> bool {
        let before = linear.0.checked_sub(1).map(|before| self.slot(LinearIndex(before)));
        match (before, self.slot(linear)) {
            (Some(Some(before)), Some(slot)) => before.offset(1) == slot,
            (Some(None), None) => true,
            _ => false,
        }
    }

    /// The pages that lie over a slot. O(extents): for what happens rarely.
    pub fn pages_over(&self, slot: Slot) -> impl Iterator<Item = LinearIndex> + '_ {
        self.iter().filter_map(move |extent| {
            let offset = slot.0.checked_sub(extent.slot.0)?;
            (offset < extent.page_count).then(|| extent.linear.offset(offset))
        })
    }

    /// How many mappings the kernel needs for the pages from `start` up to `end`: the extents in
    /// there and the gaps between them. O(extents in the range).
    pub fn vma_count(&self, start: LinearIndex, end: LinearIndex) -> usize {
        let (mut vmas, mut next) = (0, start);
        for extent in self.overlapping(start, end) {
            vmas += 1 + usize::from(next < extent.linear);
            next = extent.end();
        }
        vmas + usize::from(next < end)
    }

    /// Bytes the map takes on the heap, about: an entry and its share of half-filled nodes.
    pub fn heap_bytes(&self) -> usize {
        self.runs.len() * (size_of::<LinearIndex>() + size_of::<(Slot, u32)>()) * 3 / 2
    }

    fn at_or_before(&self, linear: LinearIndex) -> Option<Extent> {
        self.runs.range(..=linear).next_back().map(|(&linear, &run)| extent(linear, run))
    }
}

fn extent(linear: LinearIndex, (slot, page_count): (Slot, u32)) -> Extent {
    Extent { linear, slot, page_count }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGES: u32 = 64;

    proptest! {
        #[test]
        fn agrees_with_a_slot_for_each_page(
            ops in prop::collection::vec(
                (any::<bool>(), 0..PAGES, 1_u32..12, prop_oneof![0_u32..40, Just(100)]), 0..60),
        ) {
            let mut map = ExtentMap::default();
            let mut model = vec![None; PAGES as usize];
            for (insert, linear, count, slot) in ops {
                let page_count = count.min(PAGES - linear);
                let mut removed = Vec::new();
                let collect = |run: Extent| {
                    removed.extend((0..run.page_count).map(|i| (run.linear.0 + i, run.slot.0 + i)));
                };
                if insert {
                    let run = Extent { linear: LinearIndex(linear), slot: Slot(slot), page_count };
                    map.insert(run, collect);
                } else {
                    map.remove(LinearIndex(linear), page_count, collect);
                }
                let mut expected = Vec::new();
                for page in linear..linear + page_count {
                    if let Some(old) = model[page as usize].take() {
                        expected.push((page, old));
                    }
                    model[page as usize] = insert.then(|| slot + page - linear);
                }
                prop_assert_eq!(removed, expected);
                for page in 0..PAGES {
                    let slot = map.slot(LinearIndex(page)).map(|slot| slot.0);
                    prop_assert_eq!(slot, model[page as usize]);
                }
                let over: Vec<u32> = map.pages_over(Slot(20)).map(|page| page.0).collect();
                let expected: Vec<u32> =
                    (0..PAGES).filter(|&page| model[page as usize] == Some(20)).collect();
                prop_assert_eq!(over, expected);
                // Maximal: the map has exactly one entry for each place where a run begins.
                let begins = |page: usize| match (page.checked_sub(1).and_then(|p| model[p]), model[page]) {
                    (Some(before), Some(slot)) => before + 1 != slot,
                    (None, Some(_)) => true,
                    (_, None) => false,
                };
                prop_assert_eq!(map.len(), (0..PAGES as usize).filter(|&page| begins(page)).count());
                let gap_begins = |page: usize| model[page].is_none()
                    && page.checked_sub(1).is_none_or(|before| model[before].is_some());
                let gaps = (0..PAGES as usize).filter(|&page| gap_begins(page)).count();
                let vmas = map.vma_count(LinearIndex(0), LinearIndex(PAGES));
                prop_assert_eq!(vmas, map.len() + gaps);
                let all = LinearIndex(0)..LinearIndex(PAGES);
                let joins = (0..PAGES).filter(|&page| map.joins(LinearIndex(page))).count();
                prop_assert_eq!(joins + vmas, PAGES as usize);
                // A part has of its pages what the whole has, and nothing of others.
                let (start, end) = (LinearIndex(linear), LinearIndex(linear + page_count));
                let part = map.within([start..end]);
                prop_assert!(part.iter().eq(map.overlapping(start, end)));
                prop_assert_eq!(map.within([start..end, all]), map.clone());
            }
        }
    }

    #[test]
    fn mappings_of_a_part_are_counted_within_it() {
        let mut map = ExtentMap::default();
        map.insert(
            Extent { linear: LinearIndex(10), slot: Slot(0), page_count: 10 },
            |_| unreachable!(),
        );
        assert_eq!(map.vma_count(LinearIndex(12), LinearIndex(15)), 1);
        assert_eq!(map.vma_count(LinearIndex(0), LinearIndex(15)), 2);
        assert_eq!(map.vma_count(LinearIndex(15), LinearIndex(30)), 2);
        assert_eq!(map.vma_count(LinearIndex(20), LinearIndex(30)), 1);
    }
}
