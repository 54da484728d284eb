//! The vocabulary as types: what a number means is part of its type.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Bytes in a page, the only unit that is ever shared.
pub const PAGE_SIZE: usize = 4096;

/// A VM's number with one broker; never reused while there is the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VmId(pub u32);

/// A page's number in its VM's RAM object, in pages of [`PAGE_SIZE`].
///
/// It is fixed when the page is registered and stays the same when the memory that holds it moves
/// to another guest-physical or host address: what `linear_page_index()` is to an anonymous VMA.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct LinearIndex(pub u32);

/// A page number in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u32);

impl std::fmt::Display for VmId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for LinearIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl LinearIndex {
    /// The index `page_count` further on.
    #[must_use]
    #[inline]
    pub fn offset(self, page_count: u32) -> Self {
        Self(self.0 + page_count)
    }

    /// The `page_count` pages from this one on.
    #[inline]
    pub fn run(self, page_count: u32) -> Range<Self> {
        self..self.offset(page_count)
    }
}

/// A number of pages of one VM, which the space has checked to fit.
pub(crate) fn count(pages: usize) -> u32 {
    u32::try_from(pages).unwrap_or_else(|_| unreachable!("{pages} pages in one VM"))
}

impl Slot {
    /// The slot `page_count` further on.
    #[must_use]
    pub fn offset(self, page_count: u32) -> Self {
        Self(self.0 + page_count)
    }
}
