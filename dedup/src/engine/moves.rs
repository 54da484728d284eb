//! Moving slots, one by one or all that are worth it.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::cycle::follow_all;
use super::{Engine, WalkError};
use crate::broker::{CompactCursor, CompactScope, MoveError};
use crate::{Slot, VmId};

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
    /// Where its bytes are now.
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
    /// Bytes that the kernel held for stores, before; `None` when it did not say.
    pub store_bytes_before: Option<u64>,
    /// And after.
    pub store_bytes_after: Option<u64>,
}

/// A compaction that is under way: for an owner of an engine who has other things to do in between.
#[derive(Debug)]
pub struct Compaction {
    scope: CompactScope,
    vms: VecDeque<VmId>,
    /// The domain that the cursor belongs to.
    domain: String,
    cursor: CompactCursor,
    report: CompactReport,
    moves_before: u64,
}

impl Engine {
    /// Moves all sharers of a slot to another, with the same bytes: all guests go on reading and
    /// writing meanwhile. O(sharers).
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
        self.follow_all();
        let (moved_pages, left_pages) = (self.sharers(domain, to), self.sharers(domain, slot));
        Ok(MoveReport { to, moved_pages, left_pages })
    }

    /// Moves slots so that neighbouring pages lie over neighbouring slots, which saves mappings, or
    /// moves all slots whether that saves anything or not. O(pages).
    pub fn compact(&mut self, scope: CompactScope) -> CompactReport {
        let mut compaction = self.begin_compaction(scope);
        loop {
            if let Some(report) = self.compact_step(&mut compaction) {
                return report;
            }
        }
    }

    /// Begins what [`compact`](Self::compact) does, to be continued group by group.
    pub fn begin_compaction(&self, scope: CompactScope) -> Compaction {
        let before = self.layout();
        let mut vms: Vec<(&str, VmId)> =
            self.members.iter().map(|(&vm, member)| (member.domain.as_str(), vm)).collect();
        vms.sort_unstable();
        Compaction {
            scope,
            vms: vms.into_iter().map(|(_, vm)| vm).collect(),
            domain: String::new(),
            cursor: CompactCursor::default(),
            report: CompactReport {
                extents_before: before.extents,
                vmas_before: before.vmas,
                store_bytes_before: before.store_bytes,
                ..CompactReport::default()
            },
            moves_before: before.moves,
        }
    }

    /// Moves the next group of slots, a few hundred; says what it all came to after the last.
    pub fn compact_step(&mut self, compaction: &mut Compaction) -> Option<CompactReport> {
        while let Some(&vm) = compaction.vms.front() {
            if let Some(begun) = self.compact_vm(vm, compaction) {
                compaction.report.moved_slots += u64::from(begun);
                self.follow_all();
                return None;
            }
            compaction.cursor.rewind();
            compaction.vms.pop_front();
        }
        let after = self.layout();
        Some(CompactReport {
            moved_pages: after.moves.saturating_sub(compaction.moves_before),
            extents_after: after.extents,
            vmas_after: after.vmas,
            store_bytes_after: after.store_bytes,
            ..compaction.report
        })
    }

    fn compact_vm(&mut self, vm: VmId, compaction: &mut Compaction) -> Option<u32> {
        let name = &self.members.get(&vm)?.domain;
        if *name != compaction.domain {
            compaction.domain.clone_from(name);
            compaction.cursor = CompactCursor::default();
        }
        let broker = &mut self.domains.get_mut(name)?.broker;
        // The VM is there, so the broker knows it.
        broker.compact(vm, &mut compaction.cursor, compaction.scope).unwrap_or(None)
    }

    fn layout(&self) -> Layout {
        let agents = || self.members.values().map(|member| &member.agent);
        Layout {
            extents: agents().map(crate::agent::Agent::count_extents).sum(),
            vmas: self.budget.used(),
            store_bytes: self.domains.values().map(|domain| domain.broker.store_bytes()).sum(),
            moves: self.events().moves,
        }
    }

    /// Has the agents do what the brokers want, until there is nothing left.
    fn follow_all(&mut self) {
        let Self { members, domains, workers, .. } = self;
        for (vm, error) in workers.run(|| follow_all(members, domains)) {
            log::warn!("VM {vm}: {error}");
        }
    }

    /// Pages that share a slot.
    pub(super) fn sharers(&self, domain: &str, slot: Slot) -> u64 {
        let mut sharers = 0;
        if let Some(domain) = self.domains.get(domain) {
            domain.broker.walk_slot(slot, |_, _| {
                sharers += 1;
                ControlFlow::Continue(())
            });
        }
        sharers
    }
}

struct Layout {
    extents: u64,
    vmas: u64,
    store_bytes: Option<u64>,
    moves: u64,
}
