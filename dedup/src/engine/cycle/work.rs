//! What a step works on.

use std::collections::{BTreeMap, VecDeque};

use crate::agent::{Agent, AgentError, ScanRules, StepWork};
use crate::engine::trim::TRIMMED_PAGES;
use crate::engine::{Domain, Member};
use crate::page_range::PageRange;
use crate::protocol::Broker;
use crate::{LinearIndex, VmId};

/// What a step works on, and how.
pub(super) struct Work<'a> {
    pub(super) members: &'a mut BTreeMap<VmId, Member>,
    pub(super) domains: &'a mut BTreeMap<String, Domain>,
    pub(super) rules: ScanRules,
    pub(super) unmerge_all: bool,
    /// What the step has done so far.
    pub(super) step: StepWork,
}

impl Work<'_> {
    /// All VMs.
    pub(super) fn vms(&self) -> VecDeque<VmId> {
        self.members.keys().copied().collect()
    }

    /// VMs of which all, or some ranges, are not folded any more.
    pub(super) fn unfolded(&self) -> VecDeque<VmId> {
        let is_unfolded = |member: &Member| self.unmerge_all || member.agent.has_unfolded();
        let unfolded = self.members.iter().filter(|(_, member)| is_unfolded(member));
        unfolded.map(|(&vm, _)| vm).collect()
    }

    /// Drops the items of the next of a VM's pages that are in no tree and are not to be folded,
    /// from page `from` on; returns where to go on, or `None` if that was all.
    pub(super) fn trim(&mut self, vm: VmId, from: LinearIndex) -> Option<LinearIndex> {
        let member = self.members.get(&vm)?;
        let domain = self.domains.get_mut(&member.domain)?;
        let all = member.agent.range();
        let pages = (from..all.end).first(TRIMMED_PAGES);
        let next = pages.end;
        let unfolded = if self.unmerge_all { vec![pages] } else { member.agent.unfolded(pages) };
        for pages in unfolded {
            domain.trim(vm, pages, &mut self.step);
        }
        (next < all.end).then_some(next)
    }

    /// Has a VM's agent do something with its broker; `None` when the VM has gone.
    pub(super) fn with<T>(
        &mut self,
        vm: VmId,
        task: impl FnOnce(&mut Agent, &mut dyn Broker) -> Result<T, AgentError>,
    ) -> Option<Result<T, AgentError>> {
        let member = self.members.get_mut(&vm)?;
        let domain = self.domains.get_mut(&member.domain)?;
        Some(member.agent.count_in(&mut self.step, |agent| task(agent, &mut *domain.broker)))
    }
}
