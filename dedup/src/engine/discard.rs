//! Giving guest memory up.

use std::ops::Range;

use super::{Engine, PagesError};
use crate::agent::{Agent, DiscardReport, StepWork};
use crate::page_range::PageRange;
use crate::{LinearIndex, VmId};

/// A range of a VM's pages that is being given up, part by part: for an owner of an engine who has other
/// things to do between parts. Begin with [`Engine::begin_discard`].
#[derive(Debug)]
pub struct Discarding {
    vm: VmId,
    /// Which of the VMs that have had the number.
    serial: u64,
    left: Range<LinearIndex>,
    /// Whether a new mapping ends where what is left begins.
    anew: bool,
    report: DiscardReport,
}

impl Engine {
    /// Begins to give a range of a VM's pages up, for a balloon, a free-page report or unplugged
    /// memory. The pages read as zeroes then until they are written; what they held is lost,
    /// and so is what the guest writes to them meanwhile. What is locked (mlock(2)) stays so, and takes memory when it
    /// is used.
    ///
    /// # Errors
    ///
    /// When the VM is not attached or has no such pages.
    pub fn begin_discard(
        &self,
        vm: VmId,
        first: LinearIndex,
        page_count: u32,
    ) -> Result<Discarding, PagesError> {
        let left = self.page_range(vm, first, page_count)?;
        let serial = self.members.get(&vm).map_or(0, |member| member.serial);
        Ok(Discarding { vm, serial, left, anew: false, report: DiscardReport::default() })
    }

    /// Gives the next part of a range up: some thousand pages at most that are there. Returns what became
    /// of all of them once there is none left; the rest of a VM that has been detached is gone anyway.
    pub fn discard_step(&mut self, discarding: &mut Discarding) -> Option<DiscardReport> {
        let Discarding { vm, serial, left, anew, report } = discarding;
        let Self { members, domains, workers, last_step, step_time, .. } = self;
        *last_step = StepWork::within(*step_time);
        let member = members.get_mut(vm).filter(|member| member.serial == *serial);
        let found = member.and_then(|member| {
            let domain = domains.get_mut(&member.domain)?;
            Some((&mut member.agent, &mut *domain.broker))
        });
        let Some((agent, broker)) = found else { return Some(*report) };
        if left.is_empty() {
            return Some(*report);
        }
        let part = left.start..agent.discard_end(left);
        left.start = part.end;
        let page_count = u64::from(part.page_count());
        let is_over_slot =
            part.clone().pages().next_back().is_some_and(|page| agent.is_over_slot(page));
        let was_anew = std::mem::replace(anew, is_over_slot);
        let discard = |agent: &mut Agent| agent.discard(broker, part, was_anew);
        let done = workers.count(|| agent.count_in(last_step, discard)).unwrap_or_else(|error| {
            // The memory is given back; only the broker counts it as it was, until it is notified.
            log::error!("VM {vm}: {error}");
            DiscardReport { discarded_pages: page_count, kept_pages: 0 }
        });
        *anew &= done.kept_pages == 0;
        report.discarded_pages += done.discarded_pages;
        report.kept_pages += done.kept_pages;
        (left.is_empty()).then_some(*report)
    }

    /// Gives a range of a VM's pages up, all of it at once: [`begin_discard`](Self::begin_discard) and
    /// every [`discard_step`](Self::discard_step). Other VMs' page faults do not wait for more than one.
    /// O(extents in the range + pages).
    ///
    /// # Errors
    ///
    /// When the VM is not attached or has no such pages; nothing has changed.
    pub fn discard(
        &mut self,
        vm: VmId,
        first: LinearIndex,
        page_count: u32,
    ) -> Result<DiscardReport, PagesError> {
        let mut discarding = self.begin_discard(vm, first, page_count)?;
        loop {
            if let Some(report) = self.discard_step(&mut discarding) {
                return Ok(report);
            }
        }
    }
}
