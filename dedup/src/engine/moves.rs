//! Moving slots, one by one or all that are worth it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::walk::sharers_of;
use super::{Domain, Engine, Member, WalkError};
use crate::agent::{Agent, AgentError, StepWork};
use crate::protocol::{CompactCursor, CompactScope, DomainBroker, MoveError};
use crate::{LinearIndex, Slot, VmId};

/// Why a slot was not moved. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum MoveSlotError {
    /// There is no such domain.
    #[error(transparent)]
    Domain(WalkError),
    /// Its broker could not.
    #[error("cannot move the pages of domain '{domain}'")]
    Broker {
        /// The domain.
        domain: String,
        /// Why.
        #[source]
        source: MoveError,
    },
}

/// What became of a slot that was to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveReport {
    /// Where its bytes are now: where they were, if no page could be moved.
    pub to: Slot,
    /// Pages that share the new slot.
    pub moved_pages: u64,
    /// Pages that still count as sharers of the old one: they were written since their VMs' last
    /// pass, or the kernel refused. The next passes see to them.
    pub left_pages: u64,
}

/// What a compaction came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactReport {
    /// Slots whose sharers were moved elsewhere.
    pub moved_slots: u64,
    /// Pages that were mapped anew for that.
    pub moved_pages: u64,
    /// Runs of pages over consecutive slots in all VMs, before.
    pub extents_before: u64,
    /// And after.
    pub extents_after: u64,
    /// Mappings that the kernel held for guest memory, before.
    pub vmas_before: u64,
    /// And after.
    pub vmas_after: u64,
    /// Bytes that the kernel held for stores, before; `None` when it did not report them.
    pub store_bytes_before: Option<u64>,
    /// And after.
    pub store_bytes_after: Option<u64>,
}

/// A compaction that is under way: for an owner of an engine who has other things to do in between.
#[derive(Debug)]
pub struct Compaction {
    scope: CompactScope,
    vms: VecDeque<VmId>,
    /// The domain that the cursor and the group belong to.
    domain: String,
    cursor: CompactCursor,
    /// Slots whose sharers are being moved, and where to.
    group: Vec<(Slot, Slot)>,
    /// Those sharers that have not been directed to move yet, descending: the next ones last.
    sharers: Vec<(VmId, LinearIndex)>,
    /// What it has come to; `None` before its first part.
    report: Option<CompactReport>,
}

/// Once so many pages have been looked at and sharers counted, others have their turn.
const LOOKED_AT: u32 = 2048;

/// Pages that are mapped anew in one go at most: others wait.
const MOVE_PAGES: usize = 128;

impl Engine {
    /// Moves all sharers of a slot to another, with the same bytes, and does nothing else that there
    /// may be to do: all guests go on reading and writing meanwhile. O(sharers).
    ///
    /// # Errors
    ///
    /// When there is no such slot, or pages are joining it just now; nothing has changed.
    pub fn move_slot(&mut self, domain: &str, slot: Slot) -> Result<MoveReport, MoveSlotError> {
        let Some(found) = self.domains.get_mut(domain) else {
            return Err(MoveSlotError::Domain(WalkError::NoDomain(domain.to_owned())));
        };
        let refused = |source| MoveSlotError::Broker { domain: domain.to_owned(), source };
        let to = found.broker.begin_move(slot).map_err(refused)?;
        let mut sharers = sharers_of(&*found.broker, slot);
        sharers.sort_unstable();
        for sharers in sharers.chunks(MOVE_PAGES) {
            self.poll_sharers(domain, sharers);
        }
        let (moved_pages, left_pages) = (self.sharers(domain, to), self.sharers(domain, slot));
        // With nobody on either side the move ended when the last sharer left.
        let to = if self.give_up_move(domain, slot) { slot } else { to };
        Ok(MoveReport { to, moved_pages, left_pages })
    }

    /// Moves slots so that neighbouring pages lie over neighbouring slots, which saves mappings, or
    /// moves also those for which nothing is saved or lost. Memory that nobody writes meanwhile has never
    /// more mappings afterwards. O(pages).
    pub fn compact(&mut self, scope: CompactScope) -> CompactReport {
        let mut compaction = self.begin_compaction(scope);
        loop {
            if let Some(report) = self.compact_step(&mut compaction) {
                return report;
            }
        }
    }

    /// Begins what [`compact`](Self::compact) does, to be continued part by part.
    pub fn begin_compaction(&self, scope: CompactScope) -> Compaction {
        let mut vms: Vec<(&str, VmId)> =
            self.members.iter().map(|(&vm, member)| (member.domain.as_str(), vm)).collect();
        vms.sort_unstable();
        Compaction {
            scope,
            vms: vms.into_iter().map(|(_, vm)| vm).collect(),
            domain: String::new(),
            cursor: CompactCursor::default(),
            group: Vec::new(),
            sharers: Vec::new(),
            report: None,
        }
    }

    /// Does the next part: has 128 pages at most mapped anew, or looks at pages for others that are
    /// worth it. Returns what it all came to after the last. VMs may come and go between parts.
    pub fn compact_step(&mut self, compaction: &mut Compaction) -> Option<CompactReport> {
        // Not at the request: others may have come first.
        compaction.report.get_or_insert_with(|| {
            let before = self.layout();
            CompactReport {
                extents_before: before.extents,
                vmas_before: before.vmas,
                store_bytes_before: before.store_bytes,
                ..CompactReport::default()
            }
        });
        if !compaction.group.is_empty() {
            self.move_group(compaction);
            return None;
        }
        let mut work = 0;
        while let Some(&vm) = compaction.vms.front() {
            if let Some(group) = self.compact_vm(vm, compaction) {
                if !group.is_empty() {
                    self.begin_group(compaction, group);
                    self.move_group(compaction);
                    return None;
                }
                work += compaction.cursor.take_work();
                if work >= LOOKED_AT {
                    return None;
                }
                continue;
            }
            compaction.cursor.rewind();
            compaction.vms.pop_front();
        }
        let after = self.layout();
        Some(CompactReport {
            extents_after: after.extents,
            vmas_after: after.vmas,
            store_bytes_after: after.store_bytes,
            ..compaction.report.unwrap_or_default()
        })
    }

    /// The next slots of a VM's pages that are to be moved, none if it is time to do something else,
    /// or `None` when it has no more.
    fn compact_vm(&mut self, vm: VmId, compaction: &mut Compaction) -> Option<Vec<(Slot, Slot)>> {
        let Self { domains, members, .. } = self;
        let name = &members.get(&vm)?.domain;
        if *name != compaction.domain {
            compaction.domain.clone_from(name);
            compaction.cursor = CompactCursor::default();
        }
        let broker = &mut domains.get_mut(name)?.broker;
        let cursor = &mut compaction.cursor;
        let apart = if cursor.is_counting() { apart_pages(members, name) } else { Vec::new() };
        // The VM is there, so it is registered with the broker.
        broker.compact(vm, cursor, compaction.scope, &apart).unwrap_or(None)
    }

    /// Notes whose pages are to move with a group of slots.
    fn begin_group(&self, compaction: &mut Compaction, group: Vec<(Slot, Slot)>) {
        if let Some(domain) = self.domains.get(&compaction.domain) {
            let sharers = group.iter().flat_map(|&(slot, _)| sharers_of(&*domain.broker, slot));
            compaction.sharers = sharers.collect();
            compaction.sharers.sort_unstable_by(|one, other| other.cmp(one));
        }
        compaction.group = group;
    }

    /// Has the next sharers of a group move, and after the last of them draws the balance.
    fn move_group(&mut self, compaction: &mut Compaction) {
        let left = compaction.sharers.len().saturating_sub(MOVE_PAGES);
        let mut next = compaction.sharers.split_off(left);
        next.reverse();
        self.poll_sharers(&compaction.domain, &next);
        if !compaction.sharers.is_empty() {
            return;
        }
        for (slot, to) in std::mem::take(&mut compaction.group) {
            // What has moved in part is seen to by the next passes.
            self.give_up_move(&compaction.domain, slot);
            let moved_pages = self.sharers(&compaction.domain, to);
            if let Some(report) = &mut compaction.report {
                report.moved_pages += moved_pages;
                report.moved_slots += u64::from(moved_pages > 0);
            }
        }
    }

    fn layout(&self) -> Layout {
        let agents = || self.members.values().map(|member| &member.agent);
        Layout {
            extents: agents().map(crate::agent::Agent::extent_count).sum(),
            vmas: self.budget.used(),
            store_bytes: self.domains.values().map(|domain| domain.broker.store_bytes()).sum(),
        }
    }

    /// Has those of `sharers`, ascending, go to other slots whose own are being moved.
    fn poll_sharers(&mut self, domain: &str, sharers: &[(VmId, LinearIndex)]) {
        let Self { members, domains, workers, .. } = self;
        let Some(Domain { broker, .. }) = domains.get_mut(domain) else { return };
        let mut work = StepWork::default();
        workers.count(|| {
            for of_vm in sharers.chunk_by(|one, next| one.0 == next.0) {
                let vm = of_vm[0].0;
                let member = members.get_mut(&vm).filter(|member| member.domain == domain);
                let Some(Member { agent, .. }) = member else { continue };
                let pages: Vec<LinearIndex> = of_vm.iter().map(|&(_, linear)| linear).collect();
                let poll = |agent: &mut Agent| poll(agent, &mut **broker, vm, &pages);
                if let Err(error) = agent.count_in(&mut work, poll) {
                    log::warn!("VM {vm}: {error}");
                }
            }
        });
    }

    /// Gives up the move of a slot if it has come to nothing; returns whether it has.
    fn give_up_move(&mut self, domain: &str, slot: Slot) -> bool {
        self.domains.get_mut(domain).is_some_and(|domain| domain.broker.give_up_move(slot))
    }

    /// Pages that share a slot.
    pub(super) fn sharers(&self, domain: &str, slot: Slot) -> u64 {
        self.domains.get(domain).map_or(0, |domain| domain.broker.sharer_count(slot))
    }
}

/// The pages of a domain's VMs that begin mappings whatever they lie over, ascending. O(VMs, and all pieces
/// and policies of the domain's).
fn apart_pages(members: &BTreeMap<VmId, Member>, domain: &str) -> Vec<(VmId, LinearIndex)> {
    let members = members.iter().filter(|(_, member)| member.domain == domain);
    let pages = members.flat_map(|(&vm, member)| {
        member.agent.apart_pages().into_iter().map(move |linear| (vm, linear))
    });
    pages.collect()
}

/// Has those of a VM's pages go to other slots whose own are being moved.
fn poll(
    agent: &mut Agent,
    broker: &mut dyn DomainBroker,
    vm: VmId,
    pages: &[LinearIndex],
) -> Result<(), AgentError> {
    agent.flush_outbox(broker)?;
    let mut directives = Vec::new();
    broker.move_directives(vm, pages, &mut directives)?;
    agent.move_pages(broker, &directives)
}

struct Layout {
    extents: u64,
    vmas: u64,
    store_bytes: Option<u64>,
}
