//! The end of folding for a VM: its memory given back to it, or given up.

use super::Engine;
use crate::VmId;
use crate::agent::AgentError;

/// Why a VM is attached still. Its bytes are unchanged; what has its own memory by now is folded again
/// by the next passes.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// Not every page could be given its own memory.
    #[error("cannot give VM {vm} memory of its own; it is attached still: detach it again later")]
    Agent {
        /// The VM.
        vm: VmId,
        /// Why.
        #[source]
        source: AgentError,
    },
    /// Every page has its own memory, but some of it is mapped over the store.
    #[error(
        "cannot replace the mappings of VM {vm} by anonymous ones, for which Linux 6.8, memory and \
         free mappings are needed; it is attached still: detach it again later"
    )]
    Mapped {
        /// The VM.
        vm: VmId,
    },
}

impl Engine {
    /// Stops folding a VM whose memory goes on being used, and which may run meanwhile: every page gets
    /// memory of its own, with the bytes that it has, and all of it is ordinary anonymous memory when
    /// this returns. What was given back because it is zero takes no memory. Does nothing if the VM is
    /// not attached. O(pages), each shared one of which is copied.
    ///
    /// # Errors
    ///
    /// When the kernel has no memory for the copies or their mappings: the VM is attached still, and its
    /// bytes are unchanged.
    pub fn detach(&mut self, vm: VmId) -> Result<(), DetachError> {
        let Self { members, domains, workers, .. } = self;
        let Some(member) = members.get_mut(&vm) else {
            return Ok(());
        };
        if let Some(domain) = domains.get_mut(&member.domain) {
            let left = workers.run(|| member.agent.leave_store(&mut domain.broker));
            if !left.map_err(|source| DetachError::Agent { vm, source })? {
                return Err(DetachError::Mapped { vm });
            }
        }
        if let Some(member) = self.members.remove(&vm) {
            self.past.add(member.agent.events());
            self.forget(vm, &member.domain);
        }
        Ok(())
    }
}
