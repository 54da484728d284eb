//! Whose agents there are.

use std::collections::BTreeSet;

use super::ensure;
use crate::VmId;
use crate::broker::LocalBroker;
use crate::protocol::IndexError;

impl LocalBroker {
    /// Verifies that just these VMs are registered. O(VMs).
    ///
    /// # Errors
    ///
    /// The first VM that is registered and not among them, or the other way round.
    pub(crate) fn check_vms(&self, vms: &BTreeSet<VmId>) -> Result<(), IndexError> {
        for vm in self.members.keys() {
            ensure!(vms.contains(vm), "the broker knows VM {vm}, which has no agent");
        }
        for vm in vms {
            let is_known = self.members.contains_key(vm);
            ensure!(is_known, "VM {vm} has an agent, and its broker does not know it");
        }
        Ok(())
    }
}
