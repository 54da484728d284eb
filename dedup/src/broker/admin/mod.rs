//! The calls of an engine: `protocol::Admin`.

mod counters;
mod knobs;
mod unshared_reason;

use std::collections::BTreeSet;
use std::ops::Range;

use crate::broker::LocalBroker;
use crate::extents::Extent;
use crate::fingerprint::{Identity, Secret};
use crate::protocol::{
    Admin, BATCH, Batch, BrokerError, BrokerStats, BusyError, CompactCursor, CompactScope, Copies,
    Directive, IndexError, ItemState, MaxPageSharingError, MoveError, UnsharedReason, VmItems,
};
use crate::{LinearIndex, PAGE_SIZE, Slot, VmId};

impl Admin for LocalBroker {
    fn register(&mut self, vm: VmId, page_count: u32) -> Result<(), BrokerError> {
        self.register(vm, page_count)
    }

    fn rename(&mut self, vm: VmId, to: VmId) -> Result<(), BrokerError> {
        if self.members.contains_key(&to) {
            return Err(BrokerError::VmExists(to));
        }
        self.rename(vm, to);
        Ok(())
    }

    fn vm_count(&self) -> u64 {
        self.vm_count() as u64
    }

    fn secret(&self) -> Secret {
        self.secret().clone()
    }

    fn set_numa_node(&mut self, vm: VmId, numa_node: u32) -> Result<(), BrokerError> {
        self.set_numa_node(vm, numa_node)
    }

    fn numa_node(&self, vm: VmId) -> u32 {
        self.numa_node(vm)
    }

    fn trim(&mut self, vm: VmId, pages: Range<u32>) -> u64 {
        self.trim(vm, &pages) as u64
    }

    fn stats(&self, name: &str) -> BrokerStats {
        BrokerStats {
            domain: self.stats(name),
            live_slots: self.live_slots(),
            slots_high_water: self.slots_high_water() as u64,
        }
    }

    fn vm_items(&self, vm: VmId) -> Option<VmItems> {
        let waiting = self.waiting_count(vm)?;
        Some(VmItems { waiting, count: self.item_count(vm), bytes: self.item_bytes(vm) })
    }

    fn store_bytes(&self) -> Option<u64> {
        self.store_bytes()
    }

    fn node_count(&self) -> u64 {
        self.node_count() as u64
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn set_max_page_sharing(&mut self, limit: u32) -> Result<(), MaxPageSharingError> {
        self.set_max_page_sharing(limit)
    }

    fn set_merge_across_nodes(&mut self, allowed: bool) -> Result<(), BusyError> {
        if allowed != self.merge_across_nodes && !self.is_empty() {
            return Err(BusyError { slots: self.node_count() as u64 });
        }
        self.set_merge_across_nodes(allowed);
        Ok(())
    }

    fn slot_sharers(
        &self,
        slot: Slot,
        after: Option<(VmId, LinearIndex)>,
        pages: &mut [(VmId, LinearIndex)],
    ) -> Option<usize> {
        self.sharers_after(slot, after, pages)
    }

    fn sharer_count(&self, slot: Slot) -> u64 {
        self.sharer_count(slot)
    }

    fn unshared_reason(&self, vm: VmId, linear: LinearIndex) -> Option<UnsharedReason> {
        self.unshared_reason(vm, linear)
    }

    fn skipped(&self, vm: VmId, linear: LinearIndex) -> Option<(u8, u8)> {
        self.skipped(vm, linear)
    }

    fn has_equal(&self, page: &[u8; PAGE_SIZE]) -> bool {
        self.has_equal(page)
    }

    fn begin_move(&mut self, slot: Slot) -> Result<Slot, MoveError> {
        self.begin_move(slot)
    }

    fn move_directives(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        directives: &mut Vec<Directive>,
    ) -> Result<(), BrokerError> {
        self.move_directives(vm, pages, directives)
    }

    fn end_visits(&mut self) -> u64 {
        self.end_visits()
    }

    fn awaits_retries(&self) -> bool {
        self.awaits_retries()
    }

    fn enqueue_moves(&mut self) {
        self.enqueue_moves();
    }

    fn give_up_move(&mut self, slot: Slot) -> bool {
        self.give_up_move(slot)
    }

    fn give_up_moves(&mut self) -> u64 {
        self.give_up_moves() as u64
    }

    fn compact(
        &mut self,
        vm: VmId,
        cursor: &mut CompactCursor,
        scope: CompactScope,
        apart: &[(VmId, LinearIndex)],
    ) -> Result<Option<Vec<(Slot, Slot)>>, BrokerError> {
        let is_apart = |vm, linear| apart.binary_search(&(vm, linear)).is_ok();
        self.compact(vm, cursor, scope, is_apart)
    }

    fn join_dups(&mut self) -> u64 {
        self.join_dups() as u64
    }

    fn unshare_left_alone(&mut self) -> Batch {
        self.unshare_left_alone()
    }

    fn copies(&self, slot: Slot) -> Option<Copies> {
        self.copies(slot)
    }

    fn mark_lost(&mut self, slot: Slot) -> Result<(), MoveError> {
        self.mark_lost(slot)
    }

    fn lost_slots(&self) -> Vec<Slot> {
        self.lost_slots().collect()
    }

    fn begin_recovery(&mut self, slot: Slot, page: &[u8; PAGE_SIZE]) -> Result<Slot, MoveError> {
        self.begin_recovery(slot, page)
    }

    fn recoveries(&self) -> Vec<(Slot, Slot)> {
        self.recoveries()
    }

    fn read(&self, slot: Slot, identity: Identity) -> Option<Box<[u8; PAGE_SIZE]>> {
        self.read(slot, identity).map(Box::new)
    }

    fn has_identity(&self, page: &[u8; PAGE_SIZE], identity: Identity) -> bool {
        self.has_identity(page, identity)
    }

    fn punch_empty_slots(&mut self) {
        self.punch_empty_slots();
    }

    fn clear_contested(&mut self) {
        self.clear_contested();
    }

    fn decay_breaks(&mut self) {
        self.decay_breaks();
    }

    fn check(&self) -> Result<(), IndexError> {
        self.check()
    }

    fn check_vms(&self, vms: &BTreeSet<VmId>) -> Result<(), IndexError> {
        self.check_vms(vms)
    }

    fn extents(&self, vm: VmId, from: LinearIndex, extents: &mut Vec<Extent>) -> Batch {
        let Some(all) = self.extents(vm) else { return Batch::Last };
        let before = extents.len();
        extents.extend(all.overlapping(from, LinearIndex(u32::MAX)).take(BATCH));
        batch(extents.len() - before)
    }

    fn item_states(&self, vm: VmId, from: LinearIndex, states: &mut Vec<ItemState>) -> Batch {
        let Some(member) = self.members.get(&vm) else { return Batch::Last };
        let before = states.len();
        let pages = (from.0..member.items.page_count()).take(BATCH);
        states.extend(pages.map(|page| self.item_state(vm, LinearIndex(page))));
        batch(states.len() - before)
    }
}

/// Whether there may be more than the `count` that were appended.
fn batch(count: usize) -> Batch {
    if count < BATCH { Batch::Last } else { Batch::More }
}

#[cfg(test)]
mod tests;
