//! Items of pages that are in no tree any more given up, some at a time.

use std::ops::Range;

use super::Domain;
use crate::agent::StepWork;
use crate::protocol::TRIM_PAGES;
use crate::{LinearIndex, VmId};

/// Pages of which less is remembered in one go, at most.
pub(super) const TRIMMED_PAGES: u32 = 1 << 16;
const _: () = assert!(TRIMMED_PAGES.is_multiple_of(TRIM_PAGES));

impl Domain {
    /// Gives up what is remembered of those of a VM's `pages` that are in no tree. O(pages).
    pub(super) fn trim(&mut self, vm: VmId, pages: Range<LinearIndex>, work: &mut StepWork) {
        work.words += 1;
        work.trimmed_items += self.broker.trim(vm, pages.start.0..pages.end.0);
    }
}
