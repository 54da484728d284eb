//! A VM's memory by linear index, wherever it is mapped.

use std::ops::Range;
use std::sync::Arc;

use super::memory::{GuestMemory, Region};
use super::span::Span;
use crate::page_range::PageRange;
use crate::{LinearIndex, PAGE_SIZE};

/// Why memory cannot be folded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegionError {
    /// There is nothing to fold.
    #[error("the VM has no memory")]
    Empty,
    /// An address is not that of a page.
    #[error("region {0:?} does not begin on a page boundary")]
    Unaligned(Region),
    /// It would end beyond the last address.
    #[error("region {0:?} goes beyond what addresses can express")]
    OutOfRange(Region),
    /// A linear index would be skipped or given twice.
    #[error("region {found:?} should begin at linear index {expected}")]
    NotContiguous {
        /// The region.
        found: Region,
        /// The index that follows the region before it.
        expected: u32,
    },
}

/// Consecutive pages at consecutive addresses.
#[derive(Clone)]
pub(crate) struct Piece {
    /// The first page.
    pub(crate) linear: LinearIndex,
    pub(crate) page_count: u32,
    /// The first page's address: in a region of `memory`.
    pub(super) host_addr: usize,
    /// What keeps the pages mapped there.
    pub(super) memory: Arc<dyn GuestMemory>,
}

impl Piece {
    /// One above the last page's linear index.
    pub(crate) fn end(&self) -> LinearIndex {
        self.linear.offset(self.page_count)
    }

    /// The part from page `start` up to page `end`, unless that is nothing.
    fn part(&self, start: LinearIndex, end: LinearIndex) -> Option<Self> {
        let (linear, end) = (self.linear.max(start), self.end().min(end));
        let page_count = end.0.checked_sub(linear.0).filter(|&count| count > 0)?;
        let host_addr = self.host_addr + (linear.0 - self.linear.0) as usize * PAGE_SIZE;
        Some(Self { linear, page_count, host_addr, memory: Arc::clone(&self.memory) })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.linear == other.linear
            && self.page_count == other.page_count
            && self.host_addr == other.host_addr
            && Arc::ptr_eq(&self.memory, &other.memory)
    }

    /// Whether `next` continues this piece, in the same mapping.
    fn continues(&self, next: &Self) -> bool {
        let host_end = self.host_addr + self.page_count as usize * PAGE_SIZE;
        self.end() == next.linear
            && host_end == next.host_addr
            && Arc::ptr_eq(&self.memory, &next.memory)
    }
}

/// The memory of one VM, found by linear index.
#[derive(Clone)]
pub(crate) struct Space {
    /// Every page is in one of them; ascending by page, and none continues the one before it.
    pieces: Vec<Piece>,
}

impl Space {
    /// Takes memory whose regions lie in linear order without a gap.
    ///
    /// # Errors
    ///
    /// What is wrong with the regions; the memory is untouched.
    #[expect(clippy::needless_pass_by_value, reason = "the pieces share it from now on")]
    pub(crate) fn new(memory: Arc<dyn GuestMemory>) -> Result<Self, RegionError> {
        let (mut pieces, mut expected) = (Vec::new(), 0_u32);
        for region in memory.regions() {
            let &Region { linear, page_count, host_addr, gpa } = region;
            if !host_addr.is_multiple_of(PAGE_SIZE) || !gpa.is_multiple_of(PAGE_SIZE as u64) {
                return Err(RegionError::Unaligned(*region));
            }
            if host_addr.checked_add(region.len_bytes()).is_none() {
                return Err(RegionError::OutOfRange(*region));
            }
            match expected.checked_add(page_count) {
                Some(end) if linear.0 == expected => expected = end,
                _ => return Err(RegionError::NotContiguous { found: *region, expected }),
            }
            if page_count > 0 {
                let memory = Arc::clone(&memory);
                push(&mut pieces, Piece { linear, page_count, host_addr, memory });
            }
        }
        if pieces.is_empty() { Err(RegionError::Empty) } else { Ok(Self { pieces }) }
    }

    /// How many pages the VM has: one above its highest linear index.
    pub(crate) fn page_count(&self) -> u32 {
        self.pieces.last().map_or(0, |piece| piece.end().0)
    }

    /// One above the last page.
    pub(crate) fn end(&self) -> LinearIndex {
        LinearIndex(self.page_count())
    }

    /// Whether all pages lie where those of `other` do. O(pieces).
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&Piece, &Piece)| one.is_same(other);
        self.pieces.len() == other.pieces.len()
            && self.pieces.iter().zip(&other.pieces).all(is_same)
    }

    /// Whether the VM has `page_count` pages from `linear` on, and that is at least one.
    pub(crate) fn contains(&self, linear: LinearIndex, page_count: u32) -> bool {
        let end = linear.0.checked_add(page_count);
        page_count > 0 && end.is_some_and(|end| end <= self.page_count())
    }

    /// The pieces in linear order.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The piece that a page lies in. O(log pieces).
    ///
    /// # Panics
    ///
    /// When the VM has no such page.
    pub(crate) fn piece(&self, linear: LinearIndex) -> &Piece {
        let after = self.pieces.partition_point(|piece| piece.linear <= linear);
        let piece = &self.pieces[after - 1];
        assert!(linear < piece.end(), "no page {linear:?}");
        piece
    }

    /// The longest span from `linear` on that has at most `page_count` pages and lies in one
    /// piece, so that its addresses are consecutive.
    ///
    /// # Panics
    ///
    /// When the VM has no such page.
    pub(crate) fn span(&self, linear: LinearIndex, page_count: u32) -> Span<'_> {
        let piece = self.piece(linear);
        let skip = linear.0 - piece.linear.0;
        assert!(page_count > 0, "a span of nothing");
        self.whole(piece).part(skip, page_count.min(piece.page_count - skip))
    }

    /// The spans that pages lie in, with the first page of each: one after the other, and only one where
    /// their addresses are consecutive.
    ///
    /// # Panics
    ///
    /// When the VM has no such pages.
    pub(crate) fn spans(
        &self,
        pages: Range<LinearIndex>,
    ) -> impl Iterator<Item = (LinearIndex, Span<'_>)> {
        let mut rest = pages;
        std::iter::from_fn(move || {
            let first = rest.start;
            (!rest.is_empty()).then(|| {
                let span = self.span(first, rest.page_count());
                rest.start = first.offset(span.page_count());
                (first, span)
            })
        })
    }

    /// The span of a whole piece.
    #[expect(clippy::unused_self, reason = "the piece is one of this space's, which is borrowed")]
    pub(crate) fn whole<'space>(&'space self, piece: &'space Piece) -> Span<'space> {
        // SAFETY: a piece lies in a region of its `memory`, which it keeps alive.
        unsafe { Span::new(piece.host_addr, piece.page_count) }
    }

    /// Whether any page lies at an address that the region covers. O(pieces).
    pub(crate) fn overlaps(&self, region: &Region) -> bool {
        let end = region.host_addr.saturating_add(region.len_bytes());
        self.pieces.iter().any(|piece| {
            let len_bytes = piece.page_count as usize * PAGE_SIZE;
            piece.host_addr < end && region.host_addr < piece.host_addr + len_bytes
        })
    }

    /// Has pages be where `piece` is instead of where they were. O(pieces).
    pub(super) fn replace(&mut self, piece: &Piece) {
        let first = self.pieces.partition_point(|other| other.end() <= piece.linear);
        let after = self.pieces.partition_point(|other| other.linear < piece.end());
        // With a neighbour on each side, which may be continued now.
        let around = first.saturating_sub(1)..(after + 1).min(self.pieces.len());
        let head = self.pieces[around.start..after]
            .iter()
            .filter_map(|other| other.part(LinearIndex(0), piece.linear));
        let tail = self.pieces[first..around.end]
            .iter()
            .filter_map(|other| other.part(piece.end(), LinearIndex(u32::MAX)));
        let mut pieces = Vec::new();
        head.chain([piece.clone()]).chain(tail).for_each(|other| push(&mut pieces, other));
        self.pieces.splice(around, pieces);
    }
}

/// Adds a piece behind the others, or to the last one if it continues that.
fn push(pieces: &mut Vec<Piece>, next: Piece) {
    match pieces.last_mut() {
        Some(last) if last.continues(&next) => last.page_count += next.page_count,
        _ => pieces.push(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Claimed([Region; 1]);

    // SAFETY: nothing is done to memory whose regions are refused.
    unsafe impl GuestMemory for Claimed {
        fn regions(&self) -> &[Region] {
            &self.0
        }
    }

    #[test]
    fn memory_that_ends_beyond_the_last_address_is_refused() {
        let last = usize::MAX - PAGE_SIZE + 1;
        for (host_addr, page_count) in [(last, 1), (last, 2), (last - PAGE_SIZE, u32::MAX)] {
            let region = Region { linear: LinearIndex(0), page_count, gpa: 0, host_addr };
            let refused = Space::new(Arc::new(Claimed([region]))).err();
            assert!(matches!(refused, Some(RegionError::OutOfRange(_))), "{region:?}: {refused:?}");
        }
    }
}
