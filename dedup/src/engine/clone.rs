//! Attaching a VM that begins as a copy of another.

use std::sync::Arc;

use super::{AttachError, AttachSpec, Engine};
use crate::agent::AgentSetupError;
use crate::sys::GuestMemory;
use crate::{ChangeSource, VmId};

/// Why a VM could not be cloned. Nothing has changed but the bytes of the clone's memory.
#[derive(Debug, thiserror::Error)]
pub enum CloneError {
    /// The VM to be cloned is not attached.
    #[error("VM {0}, which is to be cloned, is not being folded")]
    NoParent(VmId),
    /// The clone's memory is not laid out as its parent's is.
    #[error("the memory of VM {child} has {pages} pages, and that of VM {parent} {parent_pages}")]
    Shape {
        /// The clone.
        child: VmId,
        /// Its pages.
        pages: u64,
        /// The VM to be cloned.
        parent: VmId,
        /// Its pages.
        parent_pages: u64,
    },
    /// The clone could not be attached.
    #[error("cannot fold the clone of VM {parent}")]
    Attach {
        /// The VM to be cloned.
        parent: VmId,
        /// Why.
        #[source]
        source: AttachError,
    },
}

impl Engine {
    /// Attaches a VM whose memory becomes a copy of another's, with the other's domain, mode,
    /// [opt-outs](Self::set_mergeable) and [NUMA node](Self::set_node). The parent must be paused. Only pages that the parent has
    /// are copied: what it has not touched takes no memory in the clone either, and reads as zeroes
    /// whatever the clone's memory held. The clone's pages are its own until they have been found
    /// equal, as any others. O(pages of the parent and of the clone).
    ///
    /// # Errors
    ///
    /// When the parent is not attached, the memory does not fit, or [`attach`](Self::attach) fails.
    pub fn attach_clone(
        &mut self,
        parent: VmId,
        child: VmId,
        memory: Arc<dyn GuestMemory>,
        changes: Box<dyn ChangeSource>,
    ) -> Result<(), CloneError> {
        let member = self.members.get(&parent).ok_or(CloneError::NoParent(parent))?;
        let pages = memory.regions().iter().map(|region| u64::from(region.count_pages)).sum();
        let parent_pages = u64::from(member.agent.count_pages());
        if pages != parent_pages {
            return Err(CloneError::Shape { child, pages, parent, parent_pages });
        }
        let (name, mode) = (member.domain.clone(), member.agent.mode());
        let spec = AttachSpec { domain: name.clone(), mode, memory, changes };
        self.attach(child, spec).map_err(|source| CloneError::Attach { parent, source })?;
        let broker = self.domains.get_mut(&name).map(|domain| &mut domain.broker);
        let noted = broker.map(|broker| broker.set_node(child, broker.node(parent)));
        debug_assert!(matches!(noted, Some(Ok(()))), "the clone was just attached");
        self.copy(parent, child).map_err(|source| {
            self.detach_and_discard(child);
            let source = AttachError::Agent { vm: child, source };
            CloneError::Attach { parent, source }
        })
    }

    /// Makes an attached VM a copy of another.
    fn copy(&mut self, parent: VmId, child: VmId) -> Result<(), AgentSetupError> {
        // Taken out, as only one of the two can be borrowed to be changed.
        let Some(mut member) = self.members.remove(&child) else {
            unreachable!("the clone was just attached")
        };
        let copied = match self.members.get(&parent) {
            Some(parent) => member.agent.copy_from(&parent.agent),
            None => unreachable!("the parent is attached"),
        };
        self.members.insert(child, member);
        copied
    }
}
