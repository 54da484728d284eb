//! Changes to where guests see their memory.

use super::Engine;
use crate::VmId;
use crate::agent::layout::LayoutChange;
use crate::regions::LayoutError;

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
}
