//! How many pages of a VM are gone through at once.
#![forbid(unsafe_code)]

/// Pages in a word of a set.
pub(super) const WORD_PAGES: u32 = 64;

/// Pages of the sets that are gone through at once when there is nothing to do about them.
pub(super) const STRETCH_PAGES: u32 = 1 << 18;

/// Visits in which all of a VM is looked at, a part in each.
const SWEEP_VISITS: u32 = 128;

/// Pages of such a part, at least.
const LEAST_PAGES: u32 = 64;

/// Pages of the part that a visit looks at of a VM of `page_count` pages.
pub(super) fn sweep_part(page_count: u32) -> u32 {
    page_count.div_ceil(SWEEP_VISITS).max(LEAST_PAGES)
}
