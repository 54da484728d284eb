//! The search for extents of which no page shares its slot, and for seams that their ends have left behind.

use std::ops::Range;

use super::SearchAt;
use super::anonymous::{MAX_GAP_PAGES, STALE_PAGES};
use crate::LinearIndex;
use crate::agent::Agent;
use crate::extents::Extent;
use crate::page_range::PageRange;
use crate::sys::MAX_MOVE_PAGES;

/// Stale extents that are moved together, and from which page the search goes on.
pub(super) struct Window {
    pub(super) pages: Option<Range<LinearIndex>>,
    pub(super) next: Option<SearchAt>,
}

impl Agent {
    /// The next stale extents from page `from` on that can be moved together, and how many extents were
    /// looked at, `limit` at most.
    pub(super) fn next_stale_window(&self, from: LinearIndex, limit: u32) -> (Window, u32) {
        let mut found: Option<Range<LinearIndex>> = None;
        let mut passed = 0;
        let end = self.space.end();
        for extent in self.extents.overlapping(from, end) {
            if passed >= limit && found.is_none() {
                return (
                    Window { pages: None, next: Some(SearchAt::Extents(extent.linear)) },
                    passed,
                );
            }
            passed += 1;
            let pages = extent.range();
            if !self.is_stale(extent) {
                if found.is_some() {
                    break;
                }
                continue;
            }
            let first = found.as_ref().map_or(pages.start, |found| found.start);
            let end = self.move_end(first).min(first.offset(STALE_PAGES)).min(pages.end);
            match &mut found {
                Some(found)
                    if pages.start >= end
                        || (found.end..pages.start).page_count() > MAX_GAP_PAGES =>
                {
                    break;
                }
                Some(found) => found.end = end,
                None => found = Some(first..end),
            }
        }
        let next = match &found {
            Some(found) => SearchAt::Extents(found.end),
            None => SearchAt::Seams(LinearIndex(0)),
        };
        (Window { pages: found, next: Some(next) }, passed)
    }

    /// The shorter side of the next seam from page `from` on, which will be one mapping with the other once it
    /// is moved, if that can be done at once; and how many seams were looked at, `limit` at most.
    pub(super) fn next_seam_window(&self, from: LinearIndex, limit: u32) -> (Window, u32) {
        let mut passed = 0;
        for &seam in self.seams.range(from..) {
            if passed >= limit {
                return (Window { pages: None, next: Some(SearchAt::Seams(seam)) }, passed);
            }
            passed += 1;
            if self.is_apart(seam) || self.extents.slot(seam).is_some() {
                continue;
            }
            let [before, after] = self.sides(seam);
            let side = if before.page_count() < after.page_count() { before } else { after };
            if side.page_count() <= MAX_MOVE_PAGES {
                let next = Some(SearchAt::Seams(seam.offset(1)));
                return (Window { pages: Some(side), next }, passed);
            }
        }
        (Window { pages: None, next: None }, passed)
    }

    /// The anonymous pages before a seam and those after it that are one mapping, or of longer ones more than
    /// can be moved at once.
    fn sides(&self, seam: LinearIndex) -> [Range<LinearIndex>; 2] {
        let piece = self.space.piece(seam);
        let first = LinearIndex(seam.0.saturating_sub(MAX_MOVE_PAGES + 1).max(piece.linear.0));
        let end = LinearIndex(seam.0.saturating_add(MAX_MOVE_PAGES + 1).min(piece.end().0));
        let mut ends = self.policy_edges(first, end);
        ends.extend(self.seams.range(first..end));
        for extent in self.extents.overlapping(first, end) {
            ends.extend([extent.linear, extent.end()]);
        }
        let before = ends.iter().copied().filter(|&page| page < seam).max();
        let after = ends.iter().copied().filter(|&page| page > seam).min();
        [before.unwrap_or(first)..seam, seam..after.unwrap_or(end)]
    }

    /// Whether no page of an extent shares its slot. O(pages / 64).
    fn is_stale(&self, extent: Extent) -> bool {
        !self.is_any_shared(&extent.range())
    }
}
