//! Positions in an agent's sets of pages, and the linear indexes that they stand for.
#![forbid(unsafe_code)]

use crate::LinearIndex;

/// Pages in a word of a set.
pub(super) const WORD_PAGES: usize = 64;

/// Pages of the sets that are gone through at once when there is nothing to do about them.
pub(super) const STRETCH_PAGES: usize = 1 << 18;

/// Visits in which all of a VM is looked at, a part in each.
const SWEEP_VISITS: usize = 128;

/// Pages of such a part, at least.
const LEAST_PAGES: usize = 64;

/// Pages of the part that a visit looks at of a VM of `page_count` pages.
pub(super) fn sweep_part(page_count: usize) -> usize {
    page_count.div_ceil(SWEEP_VISITS).max(LEAST_PAGES)
}

/// A bitmap position as the page that it stands for.
pub(super) fn linear_index(position: usize) -> LinearIndex {
    LinearIndex(count(position))
}

/// A number of pages of one VM, which the space has checked to fit.
pub(crate) fn count(pages: usize) -> u32 {
    u32::try_from(pages).unwrap_or_else(|_| unreachable!("{pages} pages in one VM"))
}
