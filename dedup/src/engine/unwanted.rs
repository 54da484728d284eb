//! Unmerging what is not to be folded any more: at once, whatever a pass is doing.

use std::time::{Duration, Instant};

use super::Engine;
use super::cycle::UNMERGE_PAGES;
use crate::VmId;
use crate::agent::{Agent, AgentError};
use crate::knobs::Run;

/// How long nothing is unmerged after the kernel had no memory for it, unless a whole pass is requested.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The state of unmerging.
#[derive(Debug, Default)]
pub(super) struct Unwanted {
    failed_at: Option<Instant>,
    /// The VM that failed last: it is the last to be tried again.
    failed: Option<VmId>,
    /// The first of each VM since they were taken.
    errors: Vec<(VmId, AgentError)>,
}

impl Unwanted {
    /// Has pages for which there was no memory be tried again.
    pub(super) fn retry(&mut self) {
        self.failed_at = None;
    }

    /// What failed since last taken.
    pub(super) fn take_errors(&mut self) -> Vec<(VmId, AgentError)> {
        std::mem::take(&mut self.errors)
    }

    /// Notes an error, one of each VM at a time: it is tried again some times a second, and while `run` is 0
    /// nobody takes them.
    fn note(&mut self, vm: VmId, error: AgentError) {
        if self.errors.iter().all(|&(other, _)| other != vm) {
            log::warn!("VM {vm}: {error}");
            self.errors.push((vm, error));
        }
    }

    fn is_waiting(&self) -> bool {
        self.failed_at.is_some_and(|failed_at| failed_at.elapsed() < RETRY_AFTER)
    }
}

impl Engine {
    /// Whether pages are still to be given their own memory, because their VM or their range was
    /// switched off, or because `run` is 2, or mappings that save nothing are to be given back. It is done by the next steps, some thousand pages each.
    /// O(VMs), or O(pages / 64) where `run` is 2.
    pub fn is_unmerging(&self) -> bool {
        if self.knobs.run == Run::Unmerge {
            return !self.is_unmerged();
        }
        self.members.values().any(|member| member.agent.has_unwanted())
    }

    /// Whether the next step gives pages their own memory: not if the kernel has just had none for it.
    pub fn can_unmerge(&self) -> bool {
        self.is_unmerging() && !self.unwanted.is_waiting()
    }

    /// How many pages of a VM are still to be given their own memory, because they are not to be folded
    /// any more; `None` when the VM is not attached. O(pages / 64).
    pub fn unmerging_pages(&self, vm: VmId) -> Option<u64> {
        let all = self.knobs.run == Run::Unmerge;
        self.members.get(&vm).map(|member| member.agent.unwanted_count(all))
    }

    /// Gives pages their own memory that are not to be folded any more, as many as a step may; returns
    /// whether there were any.
    pub(super) fn unmerge_unwanted(&mut self) -> bool {
        if self.unwanted.is_waiting() {
            return false;
        }
        let Self { members, domains, workers, unwanted, last_step, .. } = self;
        unwanted.failed_at = None;
        let mut left = UNMERGE_PAGES;
        let wanting = members.iter().filter(|(_, member)| member.agent.has_unwanted());
        let mut wanting: Vec<VmId> = wanting.map(|(&vm, _)| vm).collect();
        if wanting.is_empty() {
            return false;
        }
        // One that fails always, and takes all the time of a step, keeps no other waiting.
        let failed = unwanted.failed;
        wanting.sort_by_key(|&vm| failed.is_some_and(|failed| vm <= failed));
        workers.count(|| {
            for vm in wanting {
                let Some(member) = members.get_mut(&vm) else { continue };
                let Some(domain) = domains.get_mut(&member.domain) else { continue };
                let broker = &mut *domain.broker;
                let unmerge = |agent: &mut Agent| agent.unmerge(broker, left, false);
                match member.agent.count_in(last_step, unmerge) {
                    Ok(pages) => left = left.saturating_sub(pages),
                    Err(error) => {
                        (unwanted.failed_at, unwanted.failed) = (Some(Instant::now()), Some(vm));
                        unwanted.note(vm, error);
                    }
                }
                if last_step.is_enough() {
                    break;
                }
            }
        });
        left < UNMERGE_PAGES
    }
}
