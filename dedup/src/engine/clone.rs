//! Attaching a VM that begins as a copy of another.

use std::sync::Arc;

use super::{AttachError, AttachSpec, Domain, Engine, Member};
use crate::agent::{Copying, Prepared, ProcessMemory};
use crate::sys::GuestMemory;
use crate::{ChangeSource, LinearIndex, VmId};

/// Pages that an error names one by one, at most.
const NAMED_PAGES: usize = 8;

/// Why a VM could not be cloned. Nothing has changed, unless a [step](Engine::clone_step) refused it: steps
/// before it have copied a part.
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
    /// Pages of the VM to be cloned show slots whose memory has failed. Nobody may read them: the clone would
    /// be made of what happens to be there, or the process be ended by `SIGBUS`.
    #[error(
        "VM {parent} has pages that show slots whose memory has failed ({}); recover these slots \
         (Engine::recover_slot) before it is cloned",
        named(.pages)
    )]
    Lost {
        /// The VM to be cloned.
        parent: VmId,
        /// The pages, ascending, but for those that were copied before their slots were lost.
        pages: Vec<LinearIndex>,
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

/// Pages in words: the first of them, and how many there are.
fn named(pages: &[LinearIndex]) -> String {
    let first: Vec<String> =
        pages.iter().take(NAMED_PAGES).map(|page| page.0.to_string()).collect();
    let more = pages.len() - first.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", first.join(", "))
}

/// A clone that is being made, part by part: for an owner of an engine who has other things to do between
/// parts. Begin with [`Engine::begin_clone`]. It is no VM of the engine's before it is whole.
#[must_use = "it is no VM before it is whole"]
pub struct Cloning {
    parent: VmId,
    /// Which of the VMs that have had the parent's number.
    serial: u64,
    child: VmId,
    memory: Arc<dyn GuestMemory>,
    changes: Option<Box<dyn ChangeSource>>,
    copying: Copying,
}

impl Engine {
    /// Begins to attach a VM whose memory becomes a copy of another's, with the other's domain, mode,
    /// [opt-outs](Self::set_mergeable) and [NUMA node](Self::set_numa_node). The parent must be paused until the
    /// clone is attached. Only pages that the parent has are copied: what it has not touched takes no memory
    /// in the clone either, and reads as zeroes whatever the clone's memory held. The clone's pages are its
    /// own until they have been found equal, as any others.
    ///
    /// # Errors
    ///
    /// When the parent is not attached or has pages on slots that are known to be
    /// [lost](Self::recover_slot), the memory does not fit or is that of an attached VM, the clone is attached,
    /// or [`attach`](Self::attach) would refuse it. No byte of its memory has changed.
    pub fn begin_clone(
        &mut self,
        parent: VmId,
        child: VmId,
        memory: Arc<dyn GuestMemory>,
        changes: Box<dyn ChangeSource>,
    ) -> Result<Cloning, CloneError> {
        let member = self.members.get(&parent).ok_or(CloneError::NoParent(parent))?;
        let serial = member.serial;
        let pages = memory.regions().iter().map(|region| u64::from(region.page_count)).sum();
        let parent_pages = u64::from(member.agent.page_count());
        if pages != parent_pages {
            return Err(CloneError::Shape { child, pages, parent, parent_pages });
        }
        self.refuse_lost(parent, member, LinearIndex(0))?;
        let refused = |source| CloneError::Attach { parent, source };
        let domain = member.domain.clone();
        let prepared = self.prepare(child, &domain, &memory).map_err(refused)?;
        let copying = Copying::new(prepared);
        Ok(Cloning { parent, serial, child, memory, changes: Some(changes), copying })
    }

    /// Copies the next part, some thousand pages at most; returns whether the clone is whole and attached.
    ///
    /// # Errors
    ///
    /// When the parent has been detached, the clone's memory has become another VM's, or
    /// [`attach`](Self::attach) fails for a reason that is new since the beginning. Nothing has changed but the
    /// bytes of the clone's memory. And when a slot was [lost](Self::recover_slot) that a page shows which has
    /// not been copied yet: once it has been recovered, the next step goes on; pages that have been copied
    /// before have the right bytes.
    pub fn clone_step(&mut self, cloning: &mut Cloning) -> Result<bool, CloneError> {
        let Cloning { parent, serial, child, memory, changes, copying } = cloning;
        let (parent, child) = (*parent, *child);
        if changes.is_none() {
            return Ok(true);
        }
        let refused = |source| CloneError::Attach { parent, source };
        self.make_way(child, &**memory).map_err(refused)?;
        let member = self.members.get(&parent).filter(|member| member.serial == *serial);
        let member = member.ok_or(CloneError::NoParent(parent))?;
        self.refuse_lost(parent, member, copying.next())?;
        let is_whole = copying
            .step(&member.agent)
            .map_err(|source| refused(AttachError::Agent { vm: child, source }))?;
        let Some(changes) = changes.take_if(|_| is_whole) else { return Ok(false) };
        let (domain, mode) = (member.domain.clone(), member.agent.mode());
        let excluded = member.agent.excluded().cloned();
        let memory = Arc::clone(memory);
        let spec = AttachSpec { domain: domain.clone(), mode, memory, changes };
        self.attach(child, spec).map_err(refused)?;
        if let Some(member) = self.members.get_mut(&child) {
            member.agent.set_excluded(excluded);
        }
        let broker = self.domains.get_mut(&domain).map(|domain| &mut domain.broker);
        let noted = broker.map(|broker| broker.set_numa_node(child, broker.numa_node(parent)));
        debug_assert!(matches!(noted, Some(Ok(()))), "the clone was just attached");
        Ok(true)
    }

    /// Refuses to read pages of a VM, from page `first` on, that show slots which are known to be lost.
    /// O(lost slots × extents): nothing, as good as always.
    fn refuse_lost(
        &self,
        parent: VmId,
        member: &Member,
        first: LinearIndex,
    ) -> Result<(), CloneError> {
        let broker = self.domains.get(&member.domain).map(|domain| &domain.broker);
        let lost = broker.map(|broker| broker.lost_slots()).unwrap_or_default();
        let mut pages = member.agent.pages_showing(lost.into_iter());
        pages.retain(|page| *page >= first);
        if pages.is_empty() { Ok(()) } else { Err(CloneError::Lost { parent, pages }) }
    }

    /// Finds out whether a VM could be attached to a domain that there is, and gets its memory ready for it.
    fn prepare(
        &mut self,
        vm: VmId,
        domain: &str,
        memory: &Arc<dyn GuestMemory>,
    ) -> Result<Prepared, AttachError> {
        self.make_way(vm, &**memory)?;
        self.free_number(vm);
        let process = self.process(vm, memory.is_written_by_kernel())?;
        let unfoldable = |source| AttachError::Agent { vm, source };
        ProcessMemory::check_foldable().map_err(|source| unfoldable(source.into()))?;
        let prepared = Prepared::new(memory, &process).map_err(unfoldable)?;
        if let Some(Domain { broker, .. }) = self.domains.get_mut(domain) {
            let registered = broker.register(vm, prepared.page_count());
            registered
                .and_then(|()| broker.unregister(vm))
                .map_err(|source| AttachError::Broker { vm, domain: domain.to_owned(), source })?;
        }
        Ok(prepared)
    }

    /// Attaches a VM whose memory becomes a copy of another's, all of it at once:
    /// [`begin_clone`](Self::begin_clone) and every [`clone_step`](Self::clone_step).
    /// O(pages of the parent and of the clone).
    ///
    /// # Errors
    ///
    /// As for [`begin_clone`](Self::begin_clone), and when the kernel has no memory for the copy.
    pub fn attach_clone(
        &mut self,
        parent: VmId,
        child: VmId,
        memory: Arc<dyn GuestMemory>,
        changes: Box<dyn ChangeSource>,
    ) -> Result<(), CloneError> {
        let mut cloning = self.begin_clone(parent, child, memory, changes)?;
        while !self.clone_step(&mut cloning)? {}
        Ok(())
    }
}
