//! What the control socket controls.

use std::time::Duration;

use pagefold_api_types::{GuestPhys, VmStatus};
use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{
    CompactReport, CompactScope, DedupMode, Explanation, KnobError, Knobs, Run, SettleReport, VmId,
};

/// The VMs of a process and their folding, as requests see them.
///
/// Every call may block; none is made on the thread that serves the connections.
pub trait Control: Send + Sync + 'static {
    /// Every VM, those that have ended included.
    fn vms(&self) -> Vec<VmStatus>;

    /// One VM.
    ///
    /// # Errors
    ///
    /// [`ControlError::NoSuchVm`].
    fn vm(&self, id: VmId) -> Result<VmStatus, ControlError>;

    /// Holds a VM until it is resumed; one that is held already stays so.
    ///
    /// # Errors
    ///
    /// [`ControlError::NoSuchVm`], or [`ControlError::Conflict`] for a VM that has not been started
    /// or has stopped; it stays so.
    fn pause(&self, id: VmId) -> Result<(), ControlError>;

    /// Resumes a VM; one that runs goes on.
    ///
    /// # Errors
    ///
    /// [`ControlError::NoSuchVm`], or [`ControlError::Conflict`] for a VM that has not been started
    /// or has stopped; it stays so.
    fn resume(&self, id: VmId) -> Result<(), ControlError>;

    /// Ends a VM. One that has ended already is left as it is.
    ///
    /// # Errors
    ///
    /// [`ControlError::NoSuchVm`].
    fn stop(&self, id: VmId) -> Result<(), ControlError>;

    /// Folds more or less of a VM from now on.
    ///
    /// # Errors
    ///
    /// [`ControlError::NoSuchVm`], [`ControlError::Gone`], or [`ControlError::Conflict`] for a VM
    /// that has stopped or cannot be folded; nothing has changed.
    fn set_dedup(&self, id: VmId, mode: DedupMode) -> Result<(), ControlError>;

    /// How many pages of a VM are still to be given their own memory, because they are not to be folded
    /// any more; `None` if the VM is not folded, or nobody folds any more.
    fn unmerging_pages(&self, id: VmId) -> Option<u64>;

    /// Allows, or forbids, that a guest-physical range of a VM is folded.
    ///
    /// # Errors
    ///
    /// As [`set_dedup`](Self::set_dedup), [`ControlError::NotPages`] or [`ControlError::NoMemory`];
    /// nothing has changed.
    fn set_mergeable(
        &self,
        id: VmId,
        gpa: GuestPhys,
        len_bytes: u64,
        mergeable: bool,
    ) -> Result<(), ControlError>;

    /// The counters of folding.
    ///
    /// # Errors
    ///
    /// [`ControlError::Gone`].
    fn dedup(&self) -> Result<DedupStats, ControlError>;

    /// Sets knobs by their names, all of them or none, and returns what they are then.
    ///
    /// # Errors
    ///
    /// [`ControlError::Knob`] or [`ControlError::Gone`]; none is changed.
    fn set_knobs(&self, changes: Vec<(String, String)>) -> Result<Knobs, ControlError>;

    /// Explains of a page whether it is shared, with whom, or why not.
    ///
    /// # Errors
    ///
    /// [`ControlError::NoSuchVm`], [`ControlError::NoMemory`], [`ControlError::Gone`], or
    /// [`ControlError::Conflict`] for a VM that has stopped.
    fn explain(&self, id: VmId, gpa: GuestPhys) -> Result<Explanation, ControlError>;

    /// Moves slots so that fewer mappings are needed.
    ///
    /// # Errors
    ///
    /// [`ControlError::Gone`].
    fn compact(&self, scope: CompactScope) -> Result<CompactReport, ControlError>;

    /// Folds until a pass finds nothing more to do, or `limit` is over.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFolding`] or [`ControlError::Gone`].
    fn settle(&self, limit: Duration) -> Result<SettleReport, ControlError>;
}

/// Why a request could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No VM has the id.
    #[error("there is no VM {0}")]
    NoSuchVm(VmId),
    /// The VM's state does not allow it; nothing was changed.
    #[error("{0}")]
    Conflict(String),
    /// Knobs cannot be set so; none was changed.
    #[error(transparent)]
    Knob(#[from] KnobError),
    /// Nothing is folded at present.
    #[error("folding is stopped (run={})", u32::from(*.0))]
    NotFolding(Run),
    /// A range of memory is not one of pages; nothing was changed.
    #[error("{0}")]
    NotPages(String),
    /// The VM has no memory at the address.
    #[error("VM {vm} has no memory at {gpa}")]
    NoMemory {
        /// The VM.
        vm: VmId,
        /// The address.
        gpa: GuestPhys,
    },
    /// The part of the process that would answer has ended.
    #[error("{0}")]
    Gone(String),
}
