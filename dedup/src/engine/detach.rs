//! The end of folding for a VM: its memory given back to it, or given up.

use std::sync::{Arc, Weak};

use super::trim::TRIMMED_PAGES;
use super::{Engine, Member};
use crate::agent::{Agent, AgentError, Leaving, StepWork};
use crate::mode::DedupMode;
use crate::page_range::PageRange;
use crate::{LinearIndex, VmId};

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

/// A VM that is being detached, part by part: for an owner of an engine who has other things to do between
/// parts. Begin with [`Engine::begin_detach`]. Until it has come to its end the VM is attached, and nothing
/// more of it is folded.
#[derive(Debug)]
#[must_use = "the VM is neither folded nor detached until it has come to its end"]
pub struct Detaching {
    vm: VmId,
    /// Which of the VMs that have had the number.
    serial: u64,
    /// Shows its VM's [`Detach`] that it has not been dropped.
    _token: Arc<()>,
    at: Leaving,
    /// The first page whose item has not been given up.
    next: LinearIndex,
}

/// What a VM that is being detached will be, should it stay attached.
pub(super) struct Detach {
    mode: DedupMode,
    /// That of its [`Detaching`], which may have been given up.
    token: Weak<()>,
}

impl Member {
    /// Folds more or less of the VM from now on, or, if it is being detached, should that fail.
    pub(super) fn set_mode(&mut self, mode: DedupMode) {
        match &mut self.detach {
            Some(detach) if detach.token.strong_count() > 0 => detach.mode = mode,
            _ => {
                self.detach = None;
                self.agent.set_mode(mode);
            }
        }
    }
}

impl Engine {
    /// Begins to stop folding a VM whose memory goes on being used, and which may run meanwhile: every page
    /// gets memory of its own, with the bytes that it has. Afterwards it stays kept from children and core dumps,
    /// and without huge pages, until its owner advises otherwise (`MADV_DOFORK`, `MADV_DODUMP`,
    /// `MADV_HUGEPAGE`), as for [`detach`](Self::detach). `None` if the VM is not attached. O(pages / 64).
    pub fn begin_detach(&mut self, vm: VmId) -> Option<Detaching> {
        let member = self.members.get_mut(&vm)?;
        let mode = member.detach.take().map_or(member.agent.mode(), |detach| detach.mode);
        let token = Arc::new(());
        member.detach = Some(Detach { mode, token: Arc::downgrade(&token) });
        member.agent.begin_leaving_store();
        Some(Detaching {
            vm,
            serial: member.serial,
            _token: token,
            at: Leaving::Pages,
            next: LinearIndex(0),
        })
    }

    /// Gives the next part of the VM's memory to it: [as much as a step may](Self::last_step). Says how it
    /// ended once nothing is left to be done; a VM that has been detached meanwhile is gone anyway.
    ///
    /// # Errors
    ///
    /// When the kernel has no memory for the copies or their mappings: the VM is attached still, in the
    /// mode that it had or was [given](Self::set_mode) meanwhile, and its bytes are unchanged.
    pub fn detach_step(&mut self, detaching: &mut Detaching) -> Option<Result<(), DetachError>> {
        let Detaching { vm, serial, at, next, .. } = detaching;
        let vm = *vm;
        let Self { members, domains, workers, last_step, step_time, .. } = self;
        *last_step = StepWork::within(*step_time);
        let member = members.get_mut(&vm).filter(|member| member.serial == *serial);
        let Some(member) = member else { return Some(Ok(())) };
        let mut domain = domains.get_mut(&member.domain);
        let left = domain.as_mut().map_or(Ok(Leaving::Over), |domain| {
            let leave = |agent: &mut Agent| agent.leave_store(&mut *domain.broker, *at);
            workers.count(|| member.agent.count_in(last_step, leave))
        });
        let left = match (left, domain) {
            // All at once they would take as long as there are pages.
            (Ok(Leaving::Over), Some(domain)) if *next < member.agent.range().end => {
                let left = *next..member.agent.range().end;
                let pages = left.first(TRIMMED_PAGES);
                (*at, *next) = (Leaving::Over, pages.end);
                domain.trim(vm, pages, last_step);
                return None;
            }
            (left, _) => left,
        };
        let error = match left {
            Ok(Leaving::Over) if member.agent.end_protection() => None,
            Ok(Leaving::Over) => Some(DetachError::Mapped { vm }),
            Ok(left) => {
                *at = left;
                return None;
            }
            Err(source) => Some(DetachError::Agent { vm, source }),
        };
        if let Some(error) = error {
            if let Some(detach) = member.detach.take() {
                member.agent.set_mode(detach.mode);
            }
            return Some(Err(error));
        }
        if let Some(member) = self.members.remove(&vm) {
            self.past.add(member.agent.events());
            self.forget(vm, &member.domain);
        }
        Some(Ok(()))
    }

    /// Stops folding a VM whose memory goes on being used, and which may run meanwhile: every page gets
    /// memory of its own, with the bytes that it has, and all of it is private anonymous memory when
    /// this returns. What was given back because it is zero takes no memory. It stays marked as memory of a
    /// guest, because the kernel does not report cheaply what it was before: kept from children and core dumps, and
    /// without huge pages, until its owner advises otherwise (`MADV_DOFORK`, `MADV_DODUMP`, `MADV_HUGEPAGE`).
    /// Does nothing if the VM is not attached. [`begin_detach`](Self::begin_detach) and every [`detach_step`](Self::detach_step):
    /// O(pages), each shared one of which is copied.
    ///
    /// # Errors
    ///
    /// When the kernel has no memory for the copies or their mappings: the VM is attached still, and its
    /// bytes are unchanged.
    pub fn detach(&mut self, vm: VmId) -> Result<(), DetachError> {
        let Some(mut detaching) = self.begin_detach(vm) else { return Ok(()) };
        loop {
            if let Some(end) = self.detach_step(&mut detaching) {
                return end;
            }
        }
    }
}
