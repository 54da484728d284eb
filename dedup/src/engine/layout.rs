//! Changes to where guests see their memory, and to where this process does.

use std::sync::Arc;

use super::Engine;
use crate::agent::{LayoutChange, RelocateError, RelocateReport};
use crate::regions::LayoutError;
use crate::{GuestMemory, LinearIndex, VmId};

/// Why a VM's layout was not changed. It is as it was.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutChangeError {
    /// The VM is not attached.
    #[error("VM {0} is not being folded")]
    NoVm(VmId),
    /// Its regions would make no sense.
    #[error("cannot change where the guest of VM {vm} sees its memory")]
    Refused {
        /// The VM.
        vm: VmId,
        /// Why.
        #[source]
        source: LayoutError,
    },
}

impl Engine {
    /// Notes that a VM's guest sees its memory elsewhere from now on: what
    /// [`walk`](Self::walk) and [`find`](Self::find) go by. Folding itself goes by linear indexes
    /// and is not touched. The VM may be running. O(log regions).
    ///
    /// # Errors
    ///
    /// When the VM is not attached, or its regions would make no sense; they are as they were.
    pub fn change_layout(
        &mut self,
        vm: VmId,
        change: LayoutChange,
    ) -> Result<(), LayoutChangeError> {
        let member = self.members.get_mut(&vm).ok_or(LayoutChangeError::NoVm(vm))?;
        let refused = |source| LayoutChangeError::Refused { vm, source };
        member.agent.change_layout(change).map_err(refused)
    }

    /// Moves `page_count` pages of a VM, from `linear` on, to the host addresses of `destination`,
    /// which is one region of just that many pages; the region's linear indexes and
    /// guest-physical addresses are ignored. Every page keeps its linear index and its bytes,
    /// and none is copied: what is merged stays merged, and [`walk`](Self::walk) finds it at its
    /// new address. What is locked (mlock(2)) is locked there, and no more at the old addresses. The
    /// destination's own bytes are lost. Where the guest sees the pages does not change, but a region
    /// that has others too is split: use [`change_layout`](Self::change_layout) to have the guest see
    /// them elsewhere.
    ///
    /// Nobody, guest or device, may use the old addresses while this runs: what is written there
    /// meanwhile may be lost. Afterwards they read as zeroes, are no part of the VM, and can be the
    /// destination of another move once no page of theirs is in use. Who runs the guest with KVM
    /// points its memory slots at the new addresses before it runs on. The old memory is dropped when
    /// no page of the VM is left in it.
    ///
    /// O(mappings of the process + extents of the VM), and O(log regions) for each region that has
    /// any of the pages.
    ///
    /// # Errors
    ///
    /// When the VM is not attached or has no such pages, the destination is of another size or has
    /// memory of one of this engine's VMs in it (that of another engine's is for the caller to exclude) or is locked,
    /// or the kernel refuses, as it does at its limit of mappings: all of the VM's memory is where it
    /// was. Only if it also refuses to move back what was moved, some pages are at their new
    /// addresses: the error has how many, and every walk finds them there.
    pub fn relocate(
        &mut self,
        vm: VmId,
        linear: LinearIndex,
        page_count: u32,
        destination: Arc<dyn GuestMemory>,
    ) -> Result<RelocateReport, RelocateError> {
        // What a VM that has ended gives up there would be the pages that were moved there.
        self.leave_from(&*destination);
        let mut members = self.members.iter();
        let occupant = members.find(|(_, member)| member.agent.is_at(&*destination));
        let occupant = occupant.map(|(&occupant, _)| occupant);
        let occupant = occupant.or_else(|| self.leaver_at(&*destination));
        let member = self.members.get_mut(&vm).ok_or(RelocateError::NoVm(vm))?;
        match occupant {
            Some(occupant) => Err(RelocateError::Occupied { vm, occupant }),
            None => member.agent.relocate(linear, page_count, destination),
        }
    }
}
