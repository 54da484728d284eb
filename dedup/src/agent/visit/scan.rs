//! Reading pages that are unchanged since the last pass and computing their fingerprints, in parallel.

use std::ops::Range;

use crate::agent::{Agent, AgentError};
use crate::fingerprint::{Fingerprint, IDENTITY_PART, is_zero};
use crate::protocol::IdentityOffer;
use crate::sys::PageKind;
use crate::{LinearIndex, PAGE_SIZE};

/// Pages that a thread reads before it takes others.
const READ_PART: usize = 64;

/// What a page holds. It may hold something else already: the bytes decide, under protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Content {
    Zero,
    Data(Fingerprint),
}

/// Pages that have memory of their own, in ascending order.
#[derive(Debug, Default)]
pub(super) struct Resident {
    /// Those that are in memory.
    pub(super) pages: Vec<LinearIndex>,
    /// Those that are swapped out, or look so because the kernel is moving them to another frame.
    pub(super) swapped: Vec<LinearIndex>,
}

impl Agent {
    /// The pages in `within` that are to be looked at and that the kernel holds memory of their own
    /// for. A page that is not there has nothing to save.
    pub(super) fn resident(&self, within: Range<LinearIndex>) -> Result<Resident, AgentError> {
        let mut resident = Resident::default();
        self.scan_near(&self.visit.scan_set, within, |page, kind| match kind {
            PageKind::Private => resident.pages.push(page),
            PageKind::Swapped => resident.swapped.push(page),
            PageKind::Slot | PageKind::ZeroPage => {}
        })?;
        Ok(resident)
    }

    /// Reads pages, which others may be writing. Pages of zeroes are distinguished only if that is of use.
    pub(super) fn read(&mut self, pages: &[LinearIndex], use_zero_pages: bool) -> Vec<Content> {
        let (space, secret) = (&self.space, &self.secret);
        let look = |&linear: &LinearIndex| {
            let mut page = [0; PAGE_SIZE];
            space.span(linear, 1).copy_page(0, &mut page);
            if use_zero_pages && is_zero(&page) {
                Content::Zero
            } else {
                Content::Data(secret.fingerprint(&page))
            }
        };
        let contents = self.workers.map(pages, READ_PART, look);
        self.events.pages_scanned += pages.len() as u64;
        self.work.read_pages += pages.len() as u64;
        contents
    }

    /// Reads pages, which others may be writing, and computes their identities.
    pub(super) fn identify(&self, pages: &[LinearIndex]) -> Vec<IdentityOffer> {
        let (space, secret) = (&self.space, &self.secret);
        let identify = |&linear: &LinearIndex| {
            let mut page = [0; PAGE_SIZE];
            space.span(linear, 1).copy_page(0, &mut page);
            IdentityOffer { linear, identity: secret.identity(&page) }
        };
        self.workers.map(pages, IDENTITY_PART, identify)
    }
}
