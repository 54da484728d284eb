//! The regions of one VM: which linear pages the guest sees where, as an interval tree.
//!
//! Regions may overlap by linear index, as when the guest sees one page at two addresses, but
//! never by guest-physical address, so a region is named by the guest-physical address of its
//! first page. Two questions are answered: where the guest sees a linear page
//! ([`stab`](Regions::stab)), and which page it sees at an address ([`at_guest`](Regions::at_guest)).
//!
//! The first is an AVL tree by linear index in which each node has the highest end below it: the
//! kernel's interval tree, in an arena and with links of four bytes. A sorted vector cannot leave
//! out what begins before a page and ends before it too once regions overlap. A treap's height is
//! a matter of luck, and a guest that plugs memory and moves it would not need much. Nodes never
//! move, so the other index refers to them. A region costs at most 40 bytes here and about 24 there.
#![forbid(unsafe_code)]

mod check;
mod error;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

pub use check::RegionsCheckError;
pub use error::LayoutError;
use tree::{IntervalTree, RegionId};

use crate::{LinearIndex, PAGE_SIZE, Region};

/// How far a visit of regions went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Visits {
    /// Regions handed to the visitor: what the kernel counts as iterations of its interval tree.
    pub intervals: u64,
    /// Nodes of the tree that were looked at to find them.
    pub nodes: u64,
    /// Whether the visitor ended the visit.
    pub stopped: bool,
}

/// The regions of one VM.
#[derive(Debug, Default)]
pub struct Regions {
    tree: IntervalTree,
    /// By guest-physical address of the first page.
    by_guest: BTreeMap<u64, RegionId>,
}

impl Regions {
    /// Puts regions into an empty map. O(n log n).
    ///
    /// # Errors
    ///
    /// The first region that cannot be inserted; nothing is left behind.
    pub fn of(regions: &[Region]) -> Result<Self, LayoutError> {
        let mut map = Self::default();
        regions.iter().try_for_each(|&region| map.insert(region))?;
        Ok(map)
    }

    /// How many regions there are.
    pub fn len(&self) -> usize {
        self.by_guest.len()
    }

    /// Whether there is no region.
    #[cfg(any(test, feature = "internals"))]
    pub fn is_empty(&self) -> bool {
        self.by_guest.is_empty()
    }

    /// Adds a region, which may overlap others by linear index. O(log n).
    ///
    /// # Errors
    ///
    /// When it has no pages, is not aligned, goes beyond what numbers can express, or takes
    /// guest-physical addresses that another has; nothing has changed.
    pub fn insert(&mut self, region: Region) -> Result<(), LayoutError> {
        let end = error::guest_end(&region)?;
        if let Some(other) = self.guest_overlap(region.gpa, end) {
            return Err(LayoutError::GuestOverlap { region, other });
        }
        let id = self.tree.insert(region).ok_or(LayoutError::Full)?;
        self.by_guest.insert(region.gpa, id);
        Ok(())
    }

    /// Takes the region out that begins at `gpa`. O(log n).
    ///
    /// # Errors
    ///
    /// When none begins there; nothing has changed.
    pub fn remove(&mut self, gpa: u64) -> Result<Region, LayoutError> {
        let id = self.by_guest.remove(&gpa).ok_or(LayoutError::NoRegion { gpa })?;
        Ok(self.tree.remove(id))
    }

    /// Cuts the region that begins at `gpa` in two, the first with `page_count` pages.
    /// O(log n).
    ///
    /// # Errors
    ///
    /// When no region begins there, or a part would have no pages; nothing has changed.
    pub fn split(&mut self, gpa: u64, page_count: u32) -> Result<(), LayoutError> {
        let whole = *self.region(gpa)?;
        if page_count == 0 || page_count >= whole.page_count {
            return Err(LayoutError::BadSplit { region: whole, page_count });
        }
        if self.tree.room() == 0 {
            return Err(LayoutError::Full);
        }
        self.remove(gpa)?;
        let skip = page_count as usize * PAGE_SIZE;
        self.insert(Region { page_count, ..whole })?;
        self.insert(Region {
            linear: whole.linear.offset(page_count),
            page_count: whole.page_count - page_count,
            gpa: whole.gpa + skip as u64,
            host_addr: whole.host_addr + skip,
        })
    }

    /// Moves the region that begins at `gpa` to other addresses. Its pages keep their linear
    /// indexes, so whatever was merged before is found where it is now. O(log n).
    ///
    /// # Errors
    ///
    /// When no region begins there, or the new addresses would be refused by
    /// [`insert`](Self::insert); nothing has changed.
    pub fn move_to(
        &mut self,
        gpa: u64,
        new_gpa: u64,
        new_host_addr: usize,
    ) -> Result<(), LayoutError> {
        let before = self.remove(gpa)?;
        let moved = Region { gpa: new_gpa, host_addr: new_host_addr, ..before };
        self.insert(moved).inspect_err(|_| {
            let restored = self.insert(before);
            debug_assert!(restored.is_ok(), "its place was free a moment ago");
        })
    }

    /// Whether [`relocate`](Self::relocate) can be done, of these pages or a part of them.
    /// O(log n) for each region that has any of them.
    ///
    /// # Errors
    ///
    /// When there would be more regions than can be numbered.
    pub(crate) fn can_relocate(
        &self,
        linear: LinearIndex,
        page_count: u32,
    ) -> Result<(), LayoutError> {
        let overlapping = self.overlapping(linear, page_count).len();
        if self.tree.room() < 2 * overlapping { Err(LayoutError::Full) } else { Ok(()) }
    }

    /// Has pages be at host addresses from `host_addr` on, wherever the guest sees them; a region
    /// that has other pages too is split. Returns how many regions have the pages now. O(log n) for
    /// each of them.
    ///
    /// # Errors
    ///
    /// When there would be more regions than can be numbered; nothing has changed.
    pub(crate) fn relocate(
        &mut self,
        linear: LinearIndex,
        page_count: u32,
        host_addr: usize,
    ) -> Result<usize, LayoutError> {
        self.can_relocate(linear, page_count)?;
        let overlapping = self.overlapping(linear, page_count);
        for region in &overlapping {
            let mut gpa = region.gpa;
            let start = region.linear.max(linear);
            let before = start.0 - region.linear.0;
            if before > 0 {
                self.split(gpa, before)?;
                gpa += u64::from(before) * PAGE_SIZE as u64;
            }
            let inside = region.end().0.min(linear.0.saturating_add(page_count)) - start.0;
            if start.offset(inside) < region.end() {
                self.split(gpa, inside)?;
            }
            if let Some(&id) = self.by_guest.get(&gpa) {
                let skip = (start.0 - linear.0) as usize * PAGE_SIZE;
                self.tree.set_host_addr(id, host_addr + skip);
            }
        }
        Ok(overlapping.len())
    }

    /// The regions that have any of some pages, in linear order.
    fn overlapping(&self, linear: LinearIndex, page_count: u32) -> Vec<Region> {
        let mut found = Vec::new();
        if let Some(more) = page_count.checked_sub(1) {
            let last = LinearIndex(linear.0.saturating_add(more));
            self.tree.overlapping(linear, last, |region| {
                found.push(*region);
                ControlFlow::Continue(())
            });
        }
        found
    }

    /// Calls `visit` with each region that has the page, in linear order, until it breaks.
    /// O(log n) when regions do not overlap, else O(log n) for each region found.
    pub fn stab(
        &self,
        linear: LinearIndex,
        visit: impl FnMut(&Region) -> ControlFlow<()>,
    ) -> Visits {
        self.tree.overlapping(linear, linear, visit)
    }

    /// Calls `visit` with every region, in linear order, until it breaks: what a walk must not do,
    /// for comparison. O(n).
    pub fn all(&self, visit: impl FnMut(&Region) -> ControlFlow<()>) -> Visits {
        self.tree.all(visit)
    }

    /// The region that the guest sees at an address, and the page in it. O(log n).
    pub fn at_guest(&self, gpa: u64) -> Option<(&Region, LinearIndex)> {
        let (_, &id) = self.by_guest.range(..=gpa).next_back()?;
        let region = self.tree.region(id);
        let skip = u32::try_from((gpa - region.gpa) / PAGE_SIZE as u64).ok()?;
        (skip < region.page_count).then(|| (region, region.linear.offset(skip)))
    }

    /// Bytes on the heap, about: B-tree entries count with their share of half-filled nodes.
    pub fn heap_bytes(&self) -> usize {
        self.tree.heap_bytes() + self.by_guest.len() * size_of::<(u64, RegionId)>() * 3 / 2
    }

    /// The region that begins at `gpa`. O(log n).
    ///
    /// # Errors
    ///
    /// When none begins there.
    pub fn region(&self, gpa: u64) -> Result<&Region, LayoutError> {
        match self.by_guest.get(&gpa) {
            Some(&id) => Ok(self.tree.region(id)),
            None => Err(LayoutError::NoRegion { gpa }),
        }
    }

    /// A region that has guest-physical addresses from `start` up to `end`.
    fn guest_overlap(&self, start: u64, end: u64) -> Option<Region> {
        let (_, &id) = self.by_guest.range(..end).next_back()?;
        let region = *self.tree.region(id);
        (region.gpa + region.len_bytes() as u64 > start).then_some(region)
    }
}
