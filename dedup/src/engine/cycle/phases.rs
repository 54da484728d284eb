//! The phases of a pass.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use super::work::Work;
use super::{Cycle, Duties, UNMERGE_PAGES};
use crate::agent::AgentError;
use crate::engine::Domain;
use crate::protocol::Batch;
use crate::{LinearIndex, VmId};

/// What is still to be done in a pass.
#[derive(Debug)]
pub(super) enum Phase {
    /// Domains in which moves, and the search for what saves nothing, are still to go on.
    Begin { domains: EachDomain },
    /// VMs whose pages are still to be looked at. The first one's may have been in part.
    Visit { vms: VecDeque<VmId>, begun: bool },
    /// Domains whose VMs have all been visited, and whose brokers have not been notified.
    EndVisits { domains: EachDomain },
    /// VMs that are still to poll for directives, and whether any has had some since the first was polled.
    Poll { vms: VecDeque<VmId>, busy: bool },
    /// VMs of which all, or some ranges, are not folded any more, and of whose pages less may be remembered,
    /// from a page of the first on.
    Trim { vms: VecDeque<VmId>, next: LinearIndex },
    /// Domains in which what the pass did not come to is still to be given up.
    End { domains: EachDomain },
}

/// The domains one after the other, whichever come and go meanwhile.
#[derive(Debug, Default)]
pub(super) struct EachDomain {
    last: Option<String>,
}

impl EachDomain {
    /// The next one. O(log domains).
    fn next<'domain>(
        &mut self,
        domains: &'domain mut BTreeMap<String, Domain>,
    ) -> Option<&'domain mut Domain> {
        let (name, domain) = self.peek(domains)?;
        self.last = Some(name.clone());
        Some(domain)
    }

    /// The same, and it stays the next one. O(log domains).
    fn peek<'domain>(
        &self,
        domains: &'domain mut BTreeMap<String, Domain>,
    ) -> Option<(&'domain String, &'domain mut Domain)> {
        let after = self.last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        domains.range_mut::<str, _>((after, Bound::Unbounded)).next()
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
                Phase::Begin { domains } => {
                    work.step.visits += 1;
                    match domains.next(work.domains) {
                        Some(domain) => {
                            self.unsearched_domains += u64::from(begin(domain, self.duties));
                        }
                        None => self.phase = Phase::Visit { vms: work.vms(), begun: false },
                    }
                    continue;
                }
                Phase::Visit { vms, begun } => {
                    let Some(&vm) = vms.front() else {
                        self.phase = Phase::EndVisits { domains: EachDomain::default() };
                        continue;
                    };
                    let first = !std::mem::replace(begun, true);
                    work.step.visits += u64::from(first);
                    let looked = visit(work, vm, left, first);
                    if !matches!(looked, Some(Ok(Some(_)))) {
                        vms.pop_front();
                        *begun = false;
                    }
                    looked.map(|looked| (vm, looked.map(|pages| pages.unwrap_or(0))))
                }
                Phase::EndVisits { domains } => {
                    work.step.visits += 1;
                    match domains.peek(work.domains) {
                        Some((name, domain)) => {
                            let dropped_count = domain.broker.end_visits();
                            work.step.noted_pages += dropped_count;
                            if dropped_count == 0 {
                                domains.last = Some(name.clone());
                            }
                        }
                        None => self.phase = Phase::Poll { vms: work.vms(), busy: false },
                    }
                    continue;
                }
                // What was about to be merged is about to be unmerged.
                Phase::Poll { .. } if work.unmerge_all => {
                    self.phase = Phase::Trim { vms: work.unfolded(), next: LinearIndex(0) };
                    continue;
                }
                Phase::Trim { vms, next } => {
                    let Some(&vm) = vms.front() else {
                        self.phase = Phase::End { domains: EachDomain::default() };
                        continue;
                    };
                    let end = work.trim(vm, *next);
                    if end.is_none() {
                        vms.pop_front();
                    }
                    *next = end.unwrap_or(LinearIndex(0));
                    continue;
                }
                Phase::End { domains } => {
                    let Some(domain) = domains.next(work.domains) else { return true };
                    work.step.visits += 1;
                    end(domain, self.is_scan);
                    continue;
                }
                Phase::Poll { vms, busy } => {
                    let Some(&vm) = vms.front() else {
                        // What one VM does can free or bind another's page.
                        if !*busy {
                            self.phase = Phase::Trim { vms: work.unfolded(), next: LinearIndex(0) };
                            continue;
                        }
                        *vms = work.vms();
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

/// Begins a pass in a domain; returns whether pages may be left alone with their slots there, for whose mappings others
/// wait.
fn begin(domain: &mut Domain, duties: Duties) -> bool {
    domain.broker.enqueue_moves();
    if duties.join_dups {
        domain.broker.join_dups();
    }
    duties.unshare_left_alone && domain.broker.unshare_left_alone() == Batch::More
}

/// Ends a pass in a domain, which was for folding if `is_scan`.
fn end(domain: &mut Domain, is_scan: bool) {
    domain.broker.punch_empty_slots();
    domain.broker.clear_contested();
    if is_scan {
        // Agents that got directives to move at the beginning have had a whole pass for it.
        domain.broker.give_up_moves();
        domain.broker.decay_breaks();
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
        if unmerge_all {
            agent.end_retry();
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
