//! A visit of a VM: its pages that are unchanged since the last pass are read and offered.

pub(super) mod pass;
pub(super) mod scan;

use std::collections::VecDeque;

use crate::LinearIndex;
use crate::page_set::PageSet;
use scan::Content;

/// How far the visit of a VM has come.
pub(super) struct Visit {
    /// Whether what is unchanged since the last pass is to be looked at.
    pub(super) is_scanning: bool,
    /// Whether the visit is still to sweep.
    pub(super) is_sweeping: bool,
    /// The first page for which the change source has not been read.
    pub(super) collected: LinearIndex,
    /// The first page of which it has not been taken in whether the source has named it.
    pub(super) taken_in: LinearIndex,
    /// Changed pages that were taken in since they last counted as looking.
    pub(super) taken_since: u32,
    /// The pages that are to be looked at.
    pub(super) scan_set: PageSet,
    /// The first of them that has not been looked at.
    pub(super) cursor: LinearIndex,
    /// Those that have been read and not offered yet. They are dirty still, and whatever takes them
    /// out of that set calls it off.
    pub(super) read_ahead: VecDeque<(LinearIndex, Content)>,
}

impl Visit {
    /// A visit that is over, of a VM of so many pages.
    pub(super) fn new(page_count: u32) -> Self {
        Self {
            is_scanning: false,
            is_sweeping: false,
            collected: LinearIndex(0),
            taken_in: LinearIndex(page_count),
            taken_since: 0,
            scan_set: PageSet::new(page_count),
            cursor: LinearIndex(0),
            read_ahead: VecDeque::new(),
        }
    }
}
