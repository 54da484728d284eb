//! Ranges of linear indexes: how many pages, and which.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::LinearIndex;

/// Consecutive pages of one VM.
pub(crate) trait PageRange: Sized {
    /// How many there are: none if the range is empty.
    fn page_count(&self) -> u32;

    /// Each of them, ascending.
    fn pages(self) -> impl DoubleEndedIterator<Item = LinearIndex> + ExactSizeIterator + Clone;

    /// Those that are in `other`, too.
    fn intersection(&self, other: &Self) -> Self;

    /// Where those of `part`, which is inside, are in a slice that has an element for each of them.
    fn offsets_of(&self, part: &Self) -> Range<usize>;

    /// The first of them, `page_count` at most.
    fn first(&self, page_count: u32) -> Self;
}

impl PageRange for Range<LinearIndex> {
    #[inline]
    fn page_count(&self) -> u32 {
        self.end.0.saturating_sub(self.start.0)
    }

    #[inline]
    fn pages(self) -> impl DoubleEndedIterator<Item = LinearIndex> + ExactSizeIterator + Clone {
        (self.start.0..self.end.0).map(LinearIndex)
    }

    #[inline]
    fn intersection(&self, other: &Self) -> Self {
        let start = self.start.max(other.start);
        start..self.end.min(other.end).max(start)
    }

    #[inline]
    fn offsets_of(&self, part: &Self) -> Range<usize> {
        let offset = |page: LinearIndex| (page.0 - self.start.0) as usize;
        offset(part.start)..offset(part.end)
    }

    #[inline]
    fn first(&self, page_count: u32) -> Self {
        self.start.run(page_count.min(self.page_count()))
    }
}
