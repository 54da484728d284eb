//! The search for extents that save little, of whose pages nobody loses a twin that it is entitled to.

use std::collections::BTreeSet;
use std::ops::Range;

use super::VMAS_PER_EXTENT;
use crate::agent::budget::Entitlement;
use crate::agent::budget::stale_extents::PASSED_PER_PAGE;
use crate::agent::budget::stale_extents::anonymous::{MAX_GAP_PAGES, STALE_PAGES};
use crate::agent::{Agent, AgentError};
use crate::extents::Extent;
use crate::page_range::PageRange;
use crate::protocol::Broker;
use crate::{LinearIndex, VmId};

/// What the search for extents of little worth has come to.
pub(super) enum Window {
    /// These pages are to be given back together.
    Found(Range<LinearIndex>),
    /// There is none before this page.
    Further(LinearIndex),
    /// There is none.
    None,
}

impl Agent {
    /// The next extents from page `from` on that save little and can be moved together, of which `vmas`
    /// mappings can be given back at most; and how many extents were looked at, `limit` at most.
    pub(super) fn next_window_of_little_worth(
        &mut self,
        broker: &mut dyn Broker,
        from: LinearIndex,
        vmas: u64,
        limit: u32,
    ) -> Result<(Window, u32), AgentError> {
        let mut found: Option<Range<LinearIndex>> = None;
        let (mut passed, mut left) = (0, vmas / VMAS_PER_EXTENT);
        let end = self.space.end();
        for extent in self.extents.overlapping(from, end) {
            if passed >= limit && found.is_none() {
                return Ok((Window::Further(extent.linear), passed));
            }
            passed += 1;
            let worth = self.worth(extent);
            if worth.is_none_or(|worth| worth > self.reclaim.worth) || extent.linear < from {
                let known = self.reclaim.next_worth.into_iter().chain(worth);
                self.reclaim.next_worth = known.min();
                if found.is_some() {
                    break;
                }
                continue;
            }
            // Each page that the broker is asked about counts as one that is looked at.
            let asked = worth.unwrap_or(0).saturating_mul(PASSED_PER_PAGE);
            passed = passed.saturating_add(asked);
            let partners = self.partners_in(broker, extent)?;
            if partners.iter().any(|&partner| self.is_kept_for(partner)) {
                if found.is_some() {
                    break;
                }
                for partner in partners {
                    *self.reclaim.kept.entry(partner).or_default() += VMAS_PER_EXTENT;
                }
                continue;
            }
            let first = found.as_ref().map_or(extent.linear, |found| found.start);
            match &mut found {
                Some(found)
                    if extent.end() > self.move_end(first).min(first.offset(STALE_PAGES))
                        || (found.end..extent.linear).page_count() > MAX_GAP_PAGES =>
                {
                    break;
                }
                Some(found) => found.end = extent.end(),
                None => found = Some(first..extent.end()),
            }
            for partner in partners {
                self.budget.take(partner, VMAS_PER_EXTENT);
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
        Ok((found.map_or(Window::None, Window::Found), passed))
    }

    /// Whether an extent is kept for the sake of a VM that shares with it.
    fn is_kept_for(&self, partner: VmId) -> bool {
        let entitlement = self.reclaim.entitlement;
        let kept = self.reclaim.kept.get(&partner).copied().unwrap_or(0);
        self.budget.is_entitled(partner, entitlement)
            && (entitlement != Entitlement::Half || self.budget.may_keep(kept, partner))
    }

    /// The other VMs a page of which has nothing but a page of an extent to share with. O(pages).
    fn partners_in(
        &self,
        broker: &mut dyn Broker,
        extent: Extent,
    ) -> Result<BTreeSet<VmId>, AgentError> {
        let runs = self.shared.runs_within(extent.range());
        let pages: Vec<LinearIndex> = runs.flat_map(PageRange::pages).collect();
        let mut partners = Vec::with_capacity(pages.len());
        broker.partners(self.vm, &pages, &mut partners)?;
        Ok(partners.into_iter().flatten().filter(|&partner| partner != self.vm).collect())
    }

    /// Pages of an extent that share their slots; `None` if it is not to be given back, because it cannot be
    /// moved at once. O(pages / 64).
    fn worth(&self, extent: Extent) -> Option<u32> {
        (extent.end() <= self.move_end(extent.linear))
            .then(|| self.shared.count_within(extent.range()))
    }
}
