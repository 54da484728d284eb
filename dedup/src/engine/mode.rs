//! What of a VM is folded, as that changes while it runs.

use std::ops::Range;

use super::Engine;
use crate::mode::DedupMode;
use crate::{LinearIndex, VmId};

/// Why nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PagesError {
    /// The VM is not attached.
    #[error("VM {0} is not being folded")]
    NoVm(VmId),
    /// It does not have those pages.
    #[error("VM {vm} has {pages} pages; {page_count} from page {} on are beyond them", first.0)]
    NoPages {
        /// The VM.
        vm: VmId,
        /// The first page of the request.
        first: LinearIndex,
        /// How many were.
        page_count: u32,
        /// How many it has.
        pages: u32,
    },
    /// Some of them are in a tree already.
    #[error("pages of VM {0} are shared or wait for a twin; unshare them first (mode off)")]
    InUse(VmId),
}

impl Engine {
    /// Folds more or less of a VM from now on. What is not to be folded any more is given its own
    /// memory by the next passes, even while `run` is 0, batch by batch, before anything else. A VM that
    /// is [being detached](Self::begin_detach) is not folded meanwhile, and has the mode should that fail.
    /// O(pages / 64).
    ///
    /// # Errors
    ///
    /// When the VM is not attached.
    pub fn set_mode(&mut self, vm: VmId, mode: DedupMode) -> Result<(), PagesError> {
        let member = self.members.get_mut(&vm).ok_or(PagesError::NoVm(vm))?;
        member.set_mode(mode);
        Ok(())
    }

    /// Allows that a range of a VM's pages is folded, which is so from the beginning, or forbids it:
    /// the counterpart of `MADV_MERGEABLE` and `MADV_UNMERGEABLE`. Pages that are folded are given
    /// their own memory by the next passes. O(pages / 64).
    ///
    /// # Errors
    ///
    /// When the VM is not attached or has no such pages; nothing has changed.
    pub fn set_mergeable(
        &mut self,
        vm: VmId,
        first: LinearIndex,
        page_count: u32,
        mergeable: bool,
    ) -> Result<(), PagesError> {
        let pages = self.page_range(vm, first, page_count)?;
        let member = self.members.get_mut(&vm).ok_or(PagesError::NoVm(vm))?;
        member.agent.set_mergeable(pages, mergeable);
        Ok(())
    }

    /// Sets on which NUMA node a VM's memory is, which is 0 by default: with
    /// `merge_across_nodes` off, VMs on different nodes do not share.
    ///
    /// # Errors
    ///
    /// When the VM is not attached, or has pages that are shared or wait; nothing has changed.
    pub fn set_numa_node(&mut self, vm: VmId, node: u32) -> Result<(), PagesError> {
        let member = self.members.get(&vm).ok_or(PagesError::NoVm(vm))?;
        if member.agent.is_in_trees() {
            return Err(PagesError::InUse(vm));
        }
        let broker = self.domains.get_mut(&member.domain).map(|domain| &mut domain.broker);
        broker.and_then(|broker| broker.set_numa_node(vm, node).ok()).ok_or(PagesError::NoVm(vm))
    }

    /// The pages of a VM from `first` on, if it has so many.
    pub(super) fn page_range(
        &self,
        vm: VmId,
        first: LinearIndex,
        page_count: u32,
    ) -> Result<Range<LinearIndex>, PagesError> {
        let member = self.members.get(&vm).ok_or(PagesError::NoVm(vm))?;
        let pages = member.agent.page_count();
        let end = first.0.checked_add(page_count).filter(|&end| end <= pages);
        end.ok_or(PagesError::NoPages { vm, first, page_count, pages })?;
        Ok(first.run(page_count))
    }
}
