//! What the control socket controls.

use std::time::Duration;

use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{SettleReport, VmId};

use crate::status::VmStatus;

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

    /// Lets a VM run on; one that runs goes on.
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

    /// The counters of folding.
    ///
    /// # Errors
    ///
    /// [`ControlError::Gone`].
    fn dedup(&self) -> Result<DedupStats, ControlError>;

    /// Folds until a pass finds nothing more to do, or `limit` is over.
    ///
    /// # Errors
    ///
    /// [`ControlError::Gone`].
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
    /// The part of the process that would answer has ended.
    #[error("{0}")]
    Gone(String),
}
