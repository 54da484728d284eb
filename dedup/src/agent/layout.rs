//! Where the guest sees its memory, as that changes while the VM runs.
//!
//! Only the guest's view changes. A page keeps its linear index and its host address, so it goes on
//! being folded, and nothing that was merged has to be looked at again.

use super::Agent;
use crate::regions::LayoutError;
use crate::{LinearIndex, Region};

/// A change to where a VM's guest sees its memory. A region is named by the guest-physical address,
/// in bytes, of its first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayoutChange {
    /// The guest sees pages at an address, whether or not it sees them elsewhere.
    Add {
        /// The first page.
        linear: LinearIndex,
        /// How many pages.
        count_pages: u32,
        /// Where the guest sees the first, in bytes.
        guest_phys: u64,
    },
    /// The guest does not see a region any more.
    Remove {
        /// The region.
        guest_phys: u64,
    },
    /// A region becomes two.
    Split {
        /// The region.
        guest_phys: u64,
        /// The pages of the first.
        count_pages: u32,
    },
    /// The guest sees a region elsewhere.
    Move {
        /// The region.
        guest_phys: u64,
        /// Where it is seen from now on, in bytes.
        to_guest_phys: u64,
    },
}

impl Agent {
    /// Changes where the guest sees its memory. O(log regions).
    ///
    /// # Errors
    ///
    /// When the regions would make no sense; they are as they were.
    pub(crate) fn change_layout(&mut self, change: LayoutChange) -> Result<(), LayoutError> {
        match change {
            LayoutChange::Add { linear, count_pages, guest_phys } => {
                let region = Region { linear, count_pages, guest_phys, host_addr: 0 };
                let host_addr = self.host_addr(&region).ok_or(LayoutError::NoMemory(region))?;
                self.regions.insert(Region { host_addr, ..region })
            }
            LayoutChange::Remove { guest_phys } => self.regions.remove(guest_phys).map(drop),
            LayoutChange::Split { guest_phys, count_pages } => {
                self.regions.split(guest_phys, count_pages)
            }
            LayoutChange::Move { guest_phys, to_guest_phys } => {
                let host_addr = self.regions.region(guest_phys)?.host_addr;
                self.regions.move_to(guest_phys, to_guest_phys, host_addr)
            }
        }
    }

    /// Where this process sees a region's pages, if the VM has them and they lie side by side.
    pub(super) fn host_addr(&self, region: &Region) -> Option<usize> {
        let end = region.linear.0.checked_add(region.count_pages)?;
        if region.count_pages == 0 || end > self.space.count_pages() {
            return None;
        }
        let span = self.space.span(region.linear, region.count_pages);
        (span.count_pages() == region.count_pages).then_some(span.start())
    }
}
