//! A host's VMs and their folding, controlled through the socket.

use std::time::Duration;

use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{
    CompactReport, CompactScope, DedupMode, ErrorChain, Explanation, Knobs, SettleReport, VmId,
};

use super::control::{Control, ControlError};
use pagefold::dedup_host::{DedupGone, SetKnobsError, SettleError};
use pagefold::{ExplainError, Host, OperationError, SetDedupError, SetMergeableError, VmHandle};
use pagefold_api_types::{GuestPhys, VmStatus};

impl Control for Host {
    fn vms(&self) -> Vec<VmStatus> {
        self.vms().iter().map(VmHandle::status).collect()
    }

    fn vm(&self, id: VmId) -> Result<VmStatus, ControlError> {
        Ok(find(self, id)?.status())
    }

    fn pause(&self, id: VmId) -> Result<(), ControlError> {
        find(self, id)?.pause().map_err(|error| conflict(&error))
    }

    fn resume(&self, id: VmId) -> Result<(), ControlError> {
        find(self, id)?.resume().map_err(|error| conflict(&error))
    }

    fn stop(&self, id: VmId) -> Result<(), ControlError> {
        find(self, id)?.stop();
        Ok(())
    }

    fn set_dedup(&self, id: VmId, mode: DedupMode) -> Result<(), ControlError> {
        find(self, id)?.set_dedup(mode).map_err(|error| match error {
            SetDedupError::Gone(gone) => gone.into(),
            error => ControlError::Conflict(ErrorChain::new(&error).to_string()),
        })
    }

    fn unmerging_pages(&self, id: VmId) -> Option<u64> {
        self.dedup().unmerging_pages(id).ok().flatten()
    }

    fn set_mergeable(
        &self,
        id: VmId,
        gpa: GuestPhys,
        len_bytes: u64,
        mergeable: bool,
    ) -> Result<(), ControlError> {
        let result = find(self, id)?.set_mergeable(gpa.0, len_bytes, mergeable);
        result.map_err(|error| match error {
            SetMergeableError::Gone(gone) => gone.into(),
            SetMergeableError::NotPages { .. } => ControlError::NotPages(error.to_string()),
            SetMergeableError::NoMemory { vm, gpa } => {
                ControlError::NoMemory { vm, gpa: GuestPhys(gpa) }
            }
            SetMergeableError::Stopped(_)
            | SetMergeableError::NotFolded(_)
            | SetMergeableError::Refused(_) => ControlError::Conflict(error.to_string()),
        })
    }

    fn dedup(&self) -> Result<DedupStats, ControlError> {
        Ok(self.dedup().stats()?)
    }

    fn set_knobs(&self, changes: Vec<(String, String)>) -> Result<Knobs, ControlError> {
        self.dedup().set_knobs(changes).map_err(|error| match error {
            SetKnobsError::Knob(error) => error.into(),
            SetKnobsError::Gone(gone) => gone.into(),
        })
    }

    fn explain(&self, id: VmId, gpa: GuestPhys) -> Result<Explanation, ControlError> {
        find(self, id)?.explain(gpa.0).map_err(|error| match error {
            ExplainError::Gone(gone) => gone.into(),
            ExplainError::NoMemory { vm, gpa } => {
                ControlError::NoMemory { vm, gpa: GuestPhys(gpa) }
            }
            ExplainError::Stopped(_) => ControlError::Conflict(error.to_string()),
        })
    }

    fn compact(&self, scope: CompactScope) -> Result<CompactReport, ControlError> {
        Ok(self.dedup().compact(scope)?)
    }

    fn settle(&self, limit: Duration) -> Result<SettleReport, ControlError> {
        match self.dedup().settle(limit) {
            Ok(report) | Err(SettleError::TimedOut(report)) => Ok(report),
            Err(SettleError::NotFolding(run)) => Err(ControlError::NotFolding(run)),
            Err(SettleError::Gone(gone)) => Err(gone.into()),
        }
    }
}

impl From<DedupGone> for ControlError {
    fn from(gone: DedupGone) -> Self {
        Self::Gone(gone.to_string())
    }
}

fn find(host: &Host, id: VmId) -> Result<VmHandle, ControlError> {
    host.get(id).ok_or(ControlError::NoSuchVm(id))
}

fn conflict(error: &OperationError) -> ControlError {
    ControlError::Conflict(error.to_string())
}
