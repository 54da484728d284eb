//! A host's VMs and their folding, controlled through the socket.

use std::time::Duration;

use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{SettleReport, VmId};

use super::control::{Control, ControlError};
use crate::status::VmStatus;
use crate::{Host, OperationError, VmHandle};

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

    fn dedup(&self) -> Result<DedupStats, ControlError> {
        self.dedup().stats().map_err(|gone| ControlError::Gone(gone.to_string()))
    }

    fn settle(&self, limit: Duration) -> Result<SettleReport, ControlError> {
        self.dedup().settle(limit).map_err(|gone| ControlError::Gone(gone.to_string()))
    }
}

fn find(host: &Host, id: VmId) -> Result<VmHandle, ControlError> {
    host.get(id).ok_or(ControlError::NoSuchVm(id))
}

fn conflict(error: &OperationError) -> ControlError {
    ControlError::Conflict(error.to_string())
}
