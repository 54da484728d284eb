//! The phases of a pass.

use std::collections::{BTreeMap, VecDeque};

use super::work::Work;
use super::{Cycle, UNMERGE_PAGES};
use crate::agent::AgentError;
use crate::engine::Member;
use crate::{LinearIndex, VmId};

/// What is still to be done in a pass.
#[derive(Debug)]
pub(super) enum Phase {
    /// VMs whose pages are still to be looked at. The first one's may have been in part.
    Visit { vms: VecDeque<VmId>, begun: bool },
    /// VMs that are still to poll for directives, and whether any has had some since the first was polled.
    Poll { vms: VecDeque<VmId>, busy: bool },
    /// VMs of which all, or some ranges, are not folded any more, and of whose pages less may be remembered,
    /// from a page of the first on.
    Trim { vms: VecDeque<VmId>, next: LinearIndex },
}

impl Phase {
    /// The first: all VMs are to be visited.
    pub(super) fn first(members: &BTreeMap<VmId, Member>) -> Self {
        Self::Visit { vms: members.keys().copied().collect(), begun: false }
    }
}

impl Cycle {
    /// Looks at `limit` pages at most before it is time to sleep, and does no more than a step may; returns
    /// whether the pass is over.
    pub(super) fn advance(&mut self, work: &mut Work<'_>, limit: u32) -> bool {
        let mut left = self.left.take().map_or(limit, |left| left.min(limit));
        while left > 0 {
            if work.step.is_enough() {
                self.left = Some(left);
                return false;
            }
            let done = match &mut self.phase {
                Phase::Visit { vms, begun } => {
                    let Some(&vm) = vms.front() else {
                        work.domains.values_mut().for_each(|domain| domain.broker.end_visits());
                        let vms = work.members.keys().copied().collect();
                        self.phase = Phase::Poll { vms, busy: false };
                        continue;
                    };
                    let first = !std::mem::replace(begun, true);
                    work.step.visited_vms += u64::from(first);
                    let looked = visit(work, vm, left, first);
                    if !matches!(looked, Some(Ok(Some(_)))) {
                        vms.pop_front();
                        *begun = false;
                    }
                    looked.map(|looked| (vm, looked.map(|pages| pages.unwrap_or(0))))
                }
                // What was about to be merged is about to be unmerged.
                Phase::Poll { .. } if work.unmerge_all => {
                    self.phase = Phase::Trim { vms: work.unfolded(), next: LinearIndex(0) };
                    continue;
                }
                Phase::Trim { vms, next } => {
                    let Some(&vm) = vms.front() else { return true };
                    let end = work.trim(vm, *next);
                    if end.is_none() {
                        vms.pop_front();
                    }
                    *next = end.unwrap_or(LinearIndex(0));
                    continue;
                }
                Phase::Poll { vms, busy } => {
                    let Some(&vm) = vms.front() else {
                        // What one VM does can free or bind another's page.
                        if !*busy {
                            self.phase = Phase::Trim { vms: work.unfolded(), next: LinearIndex(0) };
                            continue;
                        }
                        *vms = work.members.keys().copied().collect();
                        *busy = false;
                        continue;
                    };
                    // All of one VM's batches before the next VM's: slots are given out in the
                    // order of the first VM's pages.
                    let polled = work.with(vm, |agent, broker| agent.poll(broker, left));
                    if matches!(polled, Some(Ok(pages)) if pages > 0) {
                        *busy = true;
                    } else {
                        vms.pop_front();
                    }
                    polled.map(|polled| (vm, polled))
                }
            };
            match done {
                Some((_, Ok(pages))) => left = left.saturating_sub(pages),
                Some((vm, Err(error))) => self.errors.push((vm, error)),
                None => {}
            }
        }
        false
    }
}

/// Does the next part of a VM's visit, `limit` pages at most; returns how many it was, or `None` when
/// the visit is over.
fn visit(
    work: &mut Work<'_>,
    vm: VmId,
    limit: u32,
    first: bool,
) -> Option<Result<Option<u32>, AgentError>> {
    let (rules, unmerge_all) = (work.rules, work.unmerge_all);
    work.with(vm, |agent, broker| {
        let mut begun = Ok(());
        if first {
            begun = agent.begin_pass(broker);
        }
        match begun.and_then(|()| agent.take_in(broker)) {
            // What is to be unmerged is known without it.
            Err(AgentError::Changes(error)) if unmerge_all => {
                log::warn!("VM {vm}: cannot find out which pages changed: {error}");
                agent.leave_changes();
            }
            taken => {
                if let Some(taken) = taken? {
                    return Ok(Some(taken));
                }
            }
        }
        if unmerge_all {
            let unmerged = agent.unmerge(broker, limit.min(UNMERGE_PAGES), true)?;
            return Ok(Some(unmerged).filter(|&unmerged| unmerged > 0));
        }
        agent.look(broker, limit, rules)
    })
}
