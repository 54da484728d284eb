//! Where the guest sees its memory, and where this process does, as that changes while the VM runs.
//!
//! Whichever changes, a page keeps its linear index, so it goes on being folded, and nothing that
//! was merged has to be looked at again.

use std::sync::Arc;

use serde::Serialize;

use crate::agent::Agent;
use crate::regions::LayoutError;
use crate::sys::{GuestMemory, RemapError};
use crate::{LinearIndex, Region, VmId};

/// A change to where a VM's guest sees its memory. A region is named by the guest-physical address,
/// in bytes, of its first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayoutChange {
    /// The guest sees pages at an address, whether or not it sees them elsewhere.
    Add {
        /// The first page.
        linear: LinearIndex,
        /// How many pages.
        page_count: u32,
        /// Where the guest sees the first, in bytes.
        gpa: u64,
    },
    /// The guest does not see a region any more.
    Remove {
        /// The region.
        gpa: u64,
    },
    /// A region becomes two.
    Split {
        /// The region.
        gpa: u64,
        /// The pages of the first.
        page_count: u32,
    },
    /// The guest sees a region elsewhere.
    Move {
        /// The region.
        gpa: u64,
        /// Where it is seen from now on, in bytes.
        to_gpa: u64,
    },
}

/// What moving memory to other host addresses came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RelocateReport {
    /// Mappings of the process that were moved: extents, and the anonymous memory between them.
    pub mappings: u64,
    /// Regions, as the guest sees them, that have new host addresses.
    pub regions: u64,
}

/// Why a VM's memory was not moved to other host addresses. Unless the source of the error implies otherwise, it is
/// where it was.
#[derive(Debug, thiserror::Error)]
pub enum RelocateError {
    /// The VM is not attached.
    #[error("VM {0} is not being folded")]
    NoVm(VmId),
    /// There is memory of a VM at the destination.
    #[error("cannot move memory of VM {vm} over memory of VM {occupant}")]
    Occupied {
        /// The VM.
        vm: VmId,
        /// Whose memory is there.
        occupant: VmId,
    },
    /// Its regions would make no sense.
    #[error("cannot split the regions of VM {vm} where the memory to be moved ends")]
    Layout {
        /// The VM.
        vm: VmId,
        /// Why.
        #[source]
        source: LayoutError,
    },
    /// The kernel writes to the destination, and its faults are not held off from the VM's memory.
    #[error(
        "memory of VM {0} is not for the kernel to write to, so it cannot move to memory that is"
    )]
    Kernel(VmId),
    /// The memory did not move.
    #[error("cannot move memory of VM {vm} to other host addresses")]
    Memory {
        /// The VM.
        vm: VmId,
        /// Why.
        #[source]
        source: RemapError,
    },
}

impl Agent {
    /// Moves pages to the host addresses of `destination`, at which there is no VM's memory.
    /// O(mappings of the process + extents + regions that have the pages).
    ///
    /// # Errors
    ///
    /// When not all was moved; what is known of every page is right.
    pub(crate) fn relocate(
        &mut self,
        linear: LinearIndex,
        page_count: u32,
        destination: Arc<dyn GuestMemory>,
    ) -> Result<RelocateReport, RelocateError> {
        let vm = self.vm;
        if !self.process.covers(destination.is_written_by_kernel()) {
            return Err(RelocateError::Kernel(vm));
        }
        let layout = |source| RelocateError::Layout { vm, source };
        self.regions.can_relocate(linear, page_count).map_err(layout)?;
        let refused = |source| RelocateError::Memory { vm, source };
        let result = self.space.relocate(linear, page_count, destination, &self.process.uffd);
        let moved_pages = match &result {
            Ok(_) => page_count,
            Err(RemapError::Stranded { moved_pages, .. }) => *moved_pages,
            Err(_) => 0,
        };
        let mut regions = 0;
        if moved_pages > 0 {
            let host_addr = self.space.span(linear, moved_pages).start();
            regions = self.regions.relocate(linear, moved_pages, host_addr).map_err(layout)?;
        }
        if self.space.contains(linear, page_count) {
            self.register(linear, page_count);
            self.recount_mappings();
        }
        let mappings = result.map_err(refused)?;
        Ok(RelocateReport { mappings, regions: regions as u64 })
    }

    /// Whether any of the VM's memory is at the addresses of `memory`. O(pieces).
    pub(crate) fn is_at(&self, memory: &dyn GuestMemory) -> bool {
        memory.regions().iter().any(|region| self.space.overlaps(region))
    }

    /// Changes where the guest sees its memory. O(log regions).
    ///
    /// # Errors
    ///
    /// When the regions would make no sense; they are as they were.
    pub(crate) fn change_layout(&mut self, change: LayoutChange) -> Result<(), LayoutError> {
        match change {
            LayoutChange::Add { linear, page_count, gpa } => {
                let region = Region { linear, page_count, gpa, host_addr: 0 };
                let host_addr = self.host_addr(&region).ok_or(LayoutError::NoMemory(region))?;
                self.regions.insert(Region { host_addr, ..region })
            }
            LayoutChange::Remove { gpa } => self.regions.remove(gpa).map(drop),
            LayoutChange::Split { gpa, page_count } => self.regions.split(gpa, page_count),
            LayoutChange::Move { gpa, to_gpa } => {
                let host_addr = self.regions.region(gpa)?.host_addr;
                self.regions.move_to(gpa, to_gpa, host_addr)
            }
        }
    }

    /// Where this process sees a region's pages, if the VM has them and they lie side by side.
    pub(in crate::agent) fn host_addr(&self, region: &Region) -> Option<usize> {
        if !self.space.contains(region.linear, region.page_count) {
            return None;
        }
        let span = self.space.span(region.linear, region.page_count);
        (span.page_count() == region.page_count).then_some(span.start())
    }
}
