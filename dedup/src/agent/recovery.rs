//! Pages whose slot has failed: where they are, what they held, and how they get another slot.
//!
//! Nothing here reads a page that shows the slot: that is what must not be done to memory that the
//! hardware has lost.

use std::io;

use super::merge::runs::{Action, Run};
use super::{Agent, AgentError};
use crate::extents::Extent;
use crate::protocol::{Broker, Outcome};
use crate::sys::{PageKind, Protected, status_bytes};
use crate::{LinearIndex, PAGE_SIZE, Slot};

impl Agent {
    /// The pages that lie over a slot, and whether each has its own copy by the kernel's account.
    /// O(extents).
    pub(crate) fn pages_over(&self, slot: Slot) -> Result<Vec<(LinearIndex, bool)>, AgentError> {
        let pages = self.extents.pages_over(slot);
        pages.map(|linear| Ok((linear, self.is_private(linear)?))).collect()
    }

    /// The pages that show one of `slots`, ascending: one that has its own copy does not. O(slots × extents).
    pub(crate) fn pages_showing(&self, slots: impl Iterator<Item = Slot>) -> Vec<LinearIndex> {
        let over = slots.flat_map(|slot| self.extents.pages_over(slot));
        // If the page map cannot be read, it may show it.
        let shows_slot = |linear: &LinearIndex| !self.is_private(*linear).unwrap_or(false);
        let mut pages: Vec<LinearIndex> = over.filter(shows_slot).collect();
        pages.sort_unstable();
        pages
    }

    /// Whether a page is the VM's own by the kernel's account.
    pub(crate) fn is_private(&self, linear: LinearIndex) -> Result<bool, AgentError> {
        let kind = self.kind(linear)?;
        Ok(matches!(kind, Some(PageKind::Private | PageKind::Swapped)))
    }

    /// What stands behind a page, if anything does.
    pub(crate) fn kind(&self, linear: LinearIndex) -> Result<Option<PageKind>, AgentError> {
        let mut found = None;
        let span = self.space.span(linear, 1);
        let scanned = self.process.pagemap.scan(span, |_, _, kind| found = Some(kind));
        scanned.map_err(AgentError::Pagemap)?;
        Ok(found)
    }

    /// A copy of a page, which others may be writing.
    pub(crate) fn copy(&self, linear: LinearIndex) -> [u8; PAGE_SIZE] {
        let mut page = [0; PAGE_SIZE];
        self.space.span(linear, 1).copy_page(0, &mut page);
        page
    }

    /// Maps those of `pages` that show a slot which has failed, and so have no bytes of their own,
    /// to the slot `to`. Returns how many. Pages that were written keep their own copy.
    ///
    /// # Errors
    ///
    /// When the broker fails. Pages that the kernel refuses to map stay as they are.
    pub(crate) fn replace_slot(
        &mut self,
        broker: &mut dyn Broker,
        pages: &[LinearIndex],
        to: Slot,
    ) -> Result<u64, AgentError> {
        let mut outcomes = Vec::new();
        for &linear in pages {
            let page = linear.run(1);
            let locked = self.locked_among(page.clone());
            match self.replace_page(linear, to) {
                Ok(true) => {
                    let run = Extent { linear, slot: to, page_count: 1 };
                    outcomes.push(Outcome::Merged(run));
                    self.shared.insert(linear);
                    self.own_copies.forget(page.clone());
                    self.events.moves += 1;
                    self.place(&Run { linear, page_count: 1, action: Action::Map(to) });
                    // One that was to have memory of its own at once would not show a slot.
                    self.lock_again(&locked, &page, &[]);
                    self.register_runs(&[page]);
                    self.recount_locked(&locked);
                }
                Ok(false) => {}
                Err(error) => {
                    log::warn!("VM {}: page {linear} stays lost: {error}", self.vm);
                    self.events.errors += 1;
                }
            }
        }
        let replaced = outcomes.len() as u64;
        self.report(broker, outcomes)?;
        Ok(replaced)
    }

    /// Maps one page to a slot unless it has its own copy, which cannot change meanwhile.
    fn replace_page(&self, linear: LinearIndex, to: Slot) -> io::Result<bool> {
        if self.is_private(linear).map_err(io::Error::other)? {
            return Ok(false);
        }
        let mut protected = Protected::new(&self.process.uffd, self.space.span(linear, 1))?;
        // A page that is not there has a marker now, which looks as if it was swapped out.
        let shows_slot = match self.kind(linear).map_err(io::Error::other)? {
            Some(PageKind::Private | PageKind::ZeroPage) => false,
            Some(PageKind::Swapped) => has_nothing_swapped()?,
            None | Some(PageKind::Slot) => true,
        };
        if shows_slot {
            protected.map_slots(0, 1, &self.store.memfd, to).map_err(io::Error::from)?;
        }
        Ok(shows_slot)
    }
}

/// Whether none of the process's own pages is swapped out.
fn has_nothing_swapped() -> io::Result<bool> {
    Ok(status_bytes("VmSwap:")? == Some(0))
}
