//! VMs that have ended, and whose memory is being taken off their slots, a part each step.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Domain, Engine};
use crate::agent::{Agent, StepWork};
use crate::protocol::TRIM_PAGES;
use crate::sys::GuestMemory;
use crate::{LinearIndex, VmId};

/// How long a VM is left alone after the kernel refused it a mapping, unless a whole pass is requested.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// VMs get numbers above while they leave, if others are to have theirs. An embedder may use them, too.
const HIGH_NUMBERS: u32 = u32::MAX / 2;

/// A VM that is leaving, as long as it does: numbers of VMs are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leave(u64);

/// A VM that is leaving.
pub(super) struct Leaver {
    leave: Leave,
    /// What its broker calls it.
    vm: VmId,
    domain: String,
    agent: Agent,
    /// The first page that has not left.
    next: LinearIndex,
    failed_at: Option<Instant>,
}

impl Leaver {
    fn is_waiting(&self) -> bool {
        self.failed_at.is_some_and(|failed_at| failed_at.elapsed() < RETRY_AFTER)
    }

    /// Takes the next part of its memory off its slots; returns whether that was the last.
    fn step(&mut self, domains: &mut BTreeMap<String, Domain>, work: &mut StepWork) -> bool {
        self.failed_at = None;
        let Some(domain) = domains.get_mut(&self.domain) else { return true };
        let leave = |agent: &mut Agent| agent.leave(&mut *domain.broker, self.next);
        match self.agent.count_in(work, leave) {
            Ok(next) => {
                // All at the end would take as long as there are pages.
                let first = LinearIndex(self.next.0 / TRIM_PAGES * TRIM_PAGES);
                domain.trim(self.vm, first..next, work);
                self.next = next;
            }
            Err(error) => {
                log::warn!("VM {}: cannot take its memory off the store yet: {error}", self.vm);
                self.failed_at = Some(Instant::now());
            }
        }
        self.next >= self.agent.range().end
    }
}

impl Engine {
    /// Stops folding a VM that has ended, at once, and begins to take its memory off every slot, which
    /// loses its bytes and is done by the next [steps](Self::step). Its number is free. `None` if the VM
    /// is not attached.
    pub fn begin_detach_and_discard(&mut self, vm: VmId) -> Option<Leave> {
        let member = self.members.remove(&vm)?;
        self.past.add(member.agent.events());
        let leave = Leave(member.serial);
        let (domain, agent) = (member.domain, member.agent);
        self.leavers.push(Leaver {
            leave,
            vm,
            domain,
            agent,
            next: LinearIndex(0),
            failed_at: None,
        });
        Some(leave)
    }

    /// Stops folding a VM that has ended: takes its memory off every slot, chunk by chunk, which loses
    /// its bytes, but no lock (mlock(2)). What the kernel refuses, as it does at its limit of mappings, is tried again by the
    /// next steps; the VM's number is free all the same. Does nothing if the VM is not attached.
    /// O(pages).
    pub fn detach_and_discard(&mut self, vm: VmId) {
        if let Some(leave) = self.begin_detach_and_discard(vm) {
            while self.is_leaving(leave) && self.leave_on(|leaver| leaver.leave == leave) {}
        }
    }

    /// Whether memory of a VM that has ended may still lie over slots.
    pub fn is_leaving(&self, leave: Leave) -> bool {
        self.leavers.iter().any(|leaver| leaver.leave == leave)
    }

    /// Whether the kernel has refused to take memory of a VM that has ended off its slots, which is
    /// tried again.
    pub fn is_leave_put_off(&self, leave: Leave) -> bool {
        let refused = |leaver: &Leaver| leaver.leave == leave && leaver.failed_at.is_some();
        self.leavers.iter().any(refused)
    }

    /// Whether memory of any VM that has ended may still lie over slots.
    pub fn is_anybody_leaving(&self) -> bool {
        !self.leavers.is_empty()
    }

    /// Whether [`leave_step`](Self::leave_step) has something to do.
    pub fn can_leave(&self) -> bool {
        self.leavers.iter().any(|leaver| !leaver.is_waiting())
    }

    /// Takes a part of the memory of VMs that have ended off its slots, 2048 pages at most; returns
    /// whether there was any. [`step`](Self::step) does so, too, before anything else.
    pub fn leave_step(&mut self) -> bool {
        self.leave_on(|leaver| !leaver.is_waiting())
    }

    /// Has what was refused be tried again.
    pub(super) fn retry_leaves(&mut self) {
        self.leavers.iter_mut().for_each(|leaver| leaver.failed_at = None);
    }

    /// Has VMs that are leaving leave now whose memory is where another VM's is to be.
    pub(super) fn leave_from(&mut self, memory: &dyn GuestMemory) {
        let leaves: Vec<Leave> = self.leavers_at(memory).map(|leaver| leaver.leave).collect();
        for leave in leaves {
            while self.is_leaving(leave) && self.leave_on(|leaver| leaver.leave == leave) {}
        }
    }

    /// What was the VM, among those that are leaving, whose memory is where another's is to be.
    pub(super) fn leaver_at(&self, memory: &dyn GuestMemory) -> Option<VmId> {
        self.leavers_at(memory).next().map(|leaver| leaver.vm)
    }

    fn leavers_at<'a>(
        &'a self,
        memory: &'a dyn GuestMemory,
    ) -> impl Iterator<Item = &'a Leaver> + 'a {
        self.leavers.iter().filter(|leaver| leaver.agent.is_at(memory))
    }

    /// Those of a domain that are leaving, and what their broker calls them.
    pub(super) fn leavers_in(&self, domain: &str) -> impl Iterator<Item = (VmId, &Agent)> {
        let leavers = self.leavers.iter().filter(move |leaver| leaver.domain == domain);
        leavers.map(|leaver| (leaver.vm, &leaver.agent))
    }

    /// Frees a number for a VM that is to be attached: one that is leaving may still be registered with its
    /// domain's broker by it. O(VMs).
    pub(super) fn free_number(&mut self, vm: VmId) {
        if self.leavers.iter().all(|leaver| leaver.vm != vm) {
            return;
        }
        let Some(spare) = self.spare_number() else { return };
        for leaver in self.leavers.iter_mut().filter(|leaver| leaver.vm == vm) {
            if let Some(domain) = self.domains.get_mut(&leaver.domain) {
                let renamed = domain.broker.rename(vm, spare);
                debug_assert!(renamed.is_ok(), "no VM has that number: {renamed:?}");
                leaver.agent.rename(spare);
                leaver.vm = spare;
            }
        }
    }

    /// A number that no VM has, leaving or not. O(VMs), unless the embedder has one just below those that
    /// are given here.
    fn spare_number(&self) -> Option<VmId> {
        let all = || {
            let leavers = self.leavers.iter().map(|leaver| leaver.vm);
            leavers.chain(self.members.keys().copied())
        };
        // Below all that are high, most of which were given so.
        let high = all().filter(|number| number.0 > HIGH_NUMBERS).min();
        let below = VmId(high.map_or(u32::MAX, |lowest| lowest.0 - 1));
        let is_free = |number: &VmId| all().all(|taken| taken != *number);
        Some(below).filter(is_free).or_else(|| (0..=u32::MAX).rev().map(VmId).find(is_free))
    }

    /// Has the first that is chosen of those that are leaving go on; returns whether there was one, and
    /// nothing was refused.
    fn leave_on(&mut self, is_chosen: impl Fn(&Leaver) -> bool) -> bool {
        let Some(position) = self.leavers.iter().position(is_chosen) else { return false };
        let Self { leavers, domains, workers, past, last_step, step_time, .. } = self;
        *last_step = StepWork::within(*step_time);
        let leaver = &mut leavers[position];
        let errors_before = leaver.agent.events().errors;
        let is_over = workers.count(|| leaver.step(domains, last_step));
        past.errors += leaver.agent.events().errors - errors_before;
        if is_over {
            let Leaver { vm, domain, .. } = self.leavers.remove(position);
            self.forget(vm, &domain);
            return true;
        }
        let is_refused = leaver.failed_at.is_some();
        past.errors += u64::from(is_refused);
        !is_refused
    }
}
