//! What of a VM is folded, as that changes while it runs.

use std::io;

use pagefold_dedup::{
    DedupMode, Explanation, LinearIndex, PAGE_SIZE, PageState, PagesError, Reason, VmId, WalkReport,
};

use super::{Machine, VmHandle};
use crate::dedup_host::{AttachError, ChangeModeError, DEFAULT_DOMAIN, DedupGone};
use crate::memory::GuestRam;

const PAGE_BYTES: u64 = PAGE_SIZE as u64;

/// Why what is folded of a VM was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SetDedupError {
    /// It has stopped.
    #[error("cannot change the folding of VM {0}: it has stopped")]
    Stopped(VmId),
    /// KVM does not log its writes, without which they would go unnoticed.
    #[error("KVM refuses to log the writes of VM {vm}")]
    Log {
        /// The VM.
        vm: VmId,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// It was not folded before, and cannot be.
    #[error("cannot register VM {vm} for folding")]
    Attach {
        /// The VM.
        vm: VmId,
        /// Why.
        #[source]
        source: AttachError,
    },
    /// The engine refused.
    #[error(transparent)]
    Refused(PagesError),
    /// Nobody folds any more.
    #[error(transparent)]
    Gone(#[from] DedupGone),
}

/// Why a range of a VM's memory is folded, or not, as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetMergeableError {
    /// It has stopped.
    #[error("cannot change the folding of VM {0}: it has stopped")]
    Stopped(VmId),
    /// It is not registered for folding.
    #[error("VM {0} is not being folded: its mode is off")]
    NotFolded(VmId),
    /// The range is empty or not a whole number of pages.
    #[error("{len_bytes} bytes at {gpa:#x} are not whole pages of 4096 bytes")]
    NotPages {
        /// Where it begins.
        gpa: u64,
        /// How long it is.
        len_bytes: u64,
    },
    /// The VM has no memory there.
    #[error("VM {vm} has no memory at {gpa:#x}")]
    NoMemory {
        /// The VM.
        vm: VmId,
        /// The first address without.
        gpa: u64,
    },
    /// The engine refused.
    #[error(transparent)]
    Refused(PagesError),
    /// Nobody folds any more.
    #[error(transparent)]
    Gone(#[from] DedupGone),
}

/// Why a page is not explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// Its VM has stopped.
    #[error("VM {0} has stopped: it has no memory any more")]
    Stopped(VmId),
    /// The VM has no memory there.
    #[error("VM {vm} has no memory at {gpa:#x}")]
    NoMemory {
        /// The VM.
        vm: VmId,
        /// The address.
        gpa: u64,
    },
    /// Nobody folds any more.
    #[error(transparent)]
    Gone(#[from] DedupGone),
}

impl VmHandle {
    /// Folds more or less of the VM from now on, whether it was folded before or not. What is not
    /// to be folded any more is given its own memory step by step after this has returned, whatever
    /// the pace of folding is, and while it is stopped, too:
    /// [`unmerging_pages`](crate::DedupHost::unmerging_pages) returns how much is left.
    ///
    /// # Errors
    ///
    /// When the VM has stopped or its memory cannot be folded; all is as it was.
    pub fn set_dedup(&self, mode: DedupMode) -> Result<(), SetDedupError> {
        let vm = self.vm.id;
        // Held throughout, so that the VM does not end, and nobody else attaches it, meanwhile.
        let machine = self.vm.machine();
        let machine = machine.as_ref().ok_or(SetDedupError::Stopped(vm))?;
        match machine.dedup.set_mode(vm, mode) {
            Ok(()) => {}
            Err(ChangeModeError::Pages(PagesError::NoVm(_))) => attach(vm, machine, mode)?,
            Err(ChangeModeError::Pages(error)) => return Err(SetDedupError::Refused(error)),
            Err(ChangeModeError::Gone(gone)) => return Err(gone.into()),
        }
        self.vm.watch.change(|watched| watched.dedup = mode);
        Ok(())
    }

    /// Allows, or forbids, that the pages in a guest-physical range are folded: the counterpart of
    /// `MADV_MERGEABLE` and `MADV_UNMERGEABLE`. All are allowed at first. Pages that are folded are
    /// given their own memory step by step after this has returned.
    ///
    /// # Errors
    ///
    /// When the VM has stopped or is not folded, or its memory is not all of the range; nothing has
    /// changed.
    pub fn set_mergeable(
        &self,
        gpa: u64,
        len_bytes: u64,
        mergeable: bool,
    ) -> Result<(), SetMergeableError> {
        let vm = self.vm.id;
        let machine = self.vm.machine();
        let machine = machine.as_ref().ok_or(SetMergeableError::Stopped(vm))?;
        let is_whole = |bytes: u64| bytes.is_multiple_of(PAGE_BYTES);
        if len_bytes == 0 || !is_whole(len_bytes) || !is_whole(gpa) {
            return Err(SetMergeableError::NotPages { gpa, len_bytes });
        }
        let runs = linear_runs(&machine.ram, gpa, len_bytes)
            .map_err(|gpa| SetMergeableError::NoMemory { vm, gpa })?;
        match machine.dedup.set_mergeable(vm, runs, mergeable) {
            Ok(()) => Ok(()),
            Err(ChangeModeError::Pages(PagesError::NoVm(_))) => {
                Err(SetMergeableError::NotFolded(vm))
            }
            Err(ChangeModeError::Pages(error)) => Err(SetMergeableError::Refused(error)),
            Err(ChangeModeError::Gone(gone)) => Err(gone.into()),
        }
    }

    /// Explains of the page at a guest-physical address whether it is shared, with whom, or why not.
    ///
    /// # Errors
    ///
    /// When the VM has stopped or has no memory there.
    pub fn explain(&self, gpa: u64) -> Result<Explanation, ExplainError> {
        let vm = self.vm.id;
        let machine = self.vm.machine();
        let machine = machine.as_ref().ok_or(ExplainError::Stopped(vm))?;
        let no_memory = ExplainError::NoMemory { vm, gpa };
        let runs = linear_runs(&machine.ram, gpa, 1).map_err(|_| no_memory)?;
        let &(linear, _) = runs.first().ok_or(no_memory)?;
        let explanation = machine.dedup.explain(vm, gpa)?;
        Ok(explanation.unwrap_or_else(|| unfolded(vm, gpa, linear)))
    }
}

/// The explanation of a page of a VM that was never folded: the same as of one that was, and
/// has been switched off.
fn unfolded(vm: VmId, gpa: u64, linear: LinearIndex) -> Explanation {
    Explanation {
        vm,
        gpa,
        linear,
        domain: DEFAULT_DOMAIN.to_owned(),
        state: PageState::Loose,
        reason: Reason::Mode(DedupMode::Off),
        mappings: Vec::new(),
        dups: Vec::new(),
        walk: WalkReport::default(),
    }
}

/// Begins to fold a VM that was not folded before.
fn attach(vm: VmId, machine: &Machine, mode: DedupMode) -> Result<(), SetDedupError> {
    if mode == DedupMode::Off {
        return Ok(());
    }
    let Machine { dedup, changes, ram, .. } = machine;
    // Watched before the first look at the memory, which takes every page to have changed.
    let consumer = changes.consumer().map_err(|source| SetDedupError::Log { vm, source })?;
    dedup
        .attach(vm, ram, Box::new(consumer), mode)
        .map_err(|source| SetDedupError::Attach { vm, source })
}

/// The linear pages of a guest-physical range, run by run; or the first address without memory.
fn linear_runs(ram: &GuestRam, gpa: u64, len_bytes: u64) -> Result<Vec<(LinearIndex, u32)>, u64> {
    let end = gpa.checked_add(len_bytes).ok_or(gpa)?;
    let (mut next, mut runs) = (gpa, Vec::new());
    while next < end {
        let region = ram.regions().iter().find_map(|region| {
            let start = region.gpa.0;
            let offset = next.checked_sub(start)?;
            (offset < region.len_bytes()).then_some((region, offset))
        });
        let (region, offset) = region.ok_or(next)?;
        let len = (end - next).min(region.len_bytes() - offset);
        // Both are below the region's number of pages.
        let pages = |bytes: u64| u32::try_from(bytes / PAGE_BYTES).map_err(|_| next);
        runs.push((region.first.offset(pages(offset)?), pages(len)?));
        next += len;
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{HOLE_END, HOLE_START};

    #[test]
    fn a_range_is_the_linear_pages_under_it_or_none() {
        let ram = GuestRam::new(8 * PAGE_BYTES).unwrap();
        let runs = |start: u64, len: u64| linear_runs(&ram, start * PAGE_BYTES, len * PAGE_BYTES);
        assert_eq!(runs(0, 8), Ok(vec![(LinearIndex(0), 8)]));
        assert_eq!(runs(5, 2), Ok(vec![(LinearIndex(5), 2)]));
        assert_eq!(runs(7, 2), Err(8 * PAGE_BYTES));
        assert_eq!(runs(9, 1), Err(9 * PAGE_BYTES));
        let top = !4095;
        assert_eq!(linear_runs(&ram, top, PAGE_BYTES), Err(top));
    }

    #[test]
    fn a_range_does_not_reach_over_the_hole() {
        let ram = GuestRam::new(HOLE_START + 8 * PAGE_BYTES).unwrap();
        let runs = |start: u64, pages: u64| linear_runs(&ram, start, pages * PAGE_BYTES);
        assert_eq!(runs(HOLE_END + PAGE_BYTES, 2), Ok(vec![(LinearIndex(786_433), 2)]));
        assert_eq!(runs(HOLE_START - PAGE_BYTES, 2), Err(HOLE_START));
        assert_eq!(runs(HOLE_END - PAGE_BYTES, 2), Err(HOLE_END - PAGE_BYTES));
    }
}
