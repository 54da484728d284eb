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

    fn resume_moves(&mut self) {
        self.resume_moves();
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

    fn forget_contested(&mut self) {
        self.forget_contested();
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
mod tests {
    use std::collections::HashMap;
    use std::ops::ControlFlow;

    use super::*;
    use crate::protocol::{AdminReply, AdminRequest, Broker, Candidate, Offer, Outcome};

    const VM: VmId = VmId(3);
    const PAGES: u32 = 2500;

    /// A broker one slot of which all pages of a VM share, which is more than a batch; and the slot.
    fn crowded() -> (LocalBroker, Slot) {
        let mut broker = LocalBroker::new(8, PAGES).unwrap();
        broker.register(VM, PAGES).unwrap();
        let page = [7; PAGE_SIZE];
        let fingerprint = broker.secret().fingerprint(&page);
        let pages = || (0..PAGES).map(LinearIndex);
        let offers: Vec<Offer> = pages().map(|linear| Offer { linear, fingerprint }).collect();
        broker.offer(VM, &offers, &mut Vec::new()).unwrap();
        let mut directives = Vec::new();
        broker.directives(VM, offers.len(), &mut directives).unwrap();
        let Directive::Create { slot, .. } = directives[0] else { panic!("{directives:?}") };
        broker.fill(VM, slot, &page, &mut Vec::new()).unwrap();
        let merged = |linear| Outcome::Merged(Extent { linear, slot, page_count: 1 });
        broker.report(VM, &pages().map(merged).collect::<Vec<_>>()).unwrap();
        broker.check().unwrap();
        (broker, slot)
    }

    #[test]
    fn sharers_in_batches_are_those_of_one_walk_each_once() {
        let (broker, slot) = crowded();
        let mut walked = Vec::new();
        let flow = broker.walk_slot(slot, |vm, linear| {
            walked.push((vm, linear));
            ControlFlow::Continue(())
        });
        assert_eq!((flow, walked.len()), (Some(ControlFlow::Continue(())), PAGES as usize));
        let (mut listed, mut pages) = (Vec::new(), [(VM, LinearIndex(0)); BATCH]);
        for expected in [BATCH, BATCH, PAGES as usize - 2 * BATCH] {
            let count = broker.slot_sharers(slot, listed.last().copied(), &mut pages);
            assert_eq!(count, Some(expected));
            listed.extend_from_slice(&pages[..expected]);
        }
        assert_eq!(listed, walked);
        assert_eq!(broker.slot_sharers(slot, listed.last().copied(), &mut pages), Some(0));
        assert_eq!(broker.sharer_count(slot), u64::from(PAGES));
    }

    #[test]
    fn a_message_that_asks_for_more_sharers_than_a_batch_is_answered_with_a_batch() {
        let (mut broker, slot) = crowded();
        let mut expected = [(VM, LinearIndex(0)); BATCH];
        assert_eq!(broker.slot_sharers(slot, None, &mut expected), Some(BATCH));
        let mut ask = |slot, room| AdminRequest::SlotSharers(slot, None, room).answer(&mut broker);
        let reply = |pages: &[_]| AdminReply::SlotSharers(Some(pages.to_vec()));
        assert_eq!(ask(slot, usize::MAX), reply(&expected));
        assert_eq!(ask(slot, 5), reply(&expected[..5]));
        assert_eq!(ask(Slot(7), 5), AdminReply::SlotSharers(None));
    }

    #[cfg(feature = "encoded-messages")]
    #[test]
    fn sharers_that_are_asked_for_by_messages_are_the_same_however_many_there_is_room_for() {
        let (broker, slot) = crowded();
        let all = PAGES as usize;
        let mut expected = vec![(VM, LinearIndex(0)); all + 1];
        assert_eq!(broker.slot_sharers(slot, None, &mut expected), Some(all));
        let encoded = crate::protocol::Encoded::new(broker);
        for room in [0, 1, BATCH, BATCH + 1, 2 * BATCH, all, all + 1] {
            let mut pages = vec![(VM, LinearIndex(0)); room];
            let count = encoded.slot_sharers(slot, None, &mut pages);
            assert_eq!(count, Some(room.min(all)));
            assert_eq!(pages, expected[..room]);
        }
        assert_eq!(encoded.slot_sharers(Slot(7), None, &mut []), None);
    }

    #[test]
    fn a_walk_cannot_go_on_from_a_page_that_has_left() {
        let (mut broker, slot) = crowded();
        let mut pages = [(VM, LinearIndex(0)); BATCH];
        assert_eq!(broker.slot_sharers(slot, None, &mut pages), Some(BATCH));
        let last = pages[BATCH - 1];
        broker.report(VM, &[Outcome::Left { linear: last.1 }]).unwrap();
        let before = pages;
        assert_eq!(broker.slot_sharers(slot, Some(last), &mut pages), None);
        assert_eq!(broker.slot_sharers(slot, Some((VmId(9), last.1)), &mut pages), None);
        assert_eq!(pages, before);
    }

    #[test]
    fn extents_and_states_come_in_batches_that_leave_none_out() {
        let (broker, slot) = crowded();
        let admin: &dyn Admin = &broker;
        let (mut extents, mut states) = (Vec::new(), Vec::new());
        for (number, expected) in [Batch::More, Batch::More, Batch::Last].into_iter().enumerate() {
            let from = LinearIndex(u32::try_from(number * BATCH).unwrap());
            assert_eq!(admin.extents(VM, from, &mut extents), expected);
            assert_eq!(admin.item_states(VM, from, &mut states), expected);
        }
        assert!(extents.iter().copied().eq(broker.extents(VM).unwrap().iter()));
        assert_eq!(states, vec![ItemState::Shared(Some(slot)); PAGES as usize]);
        assert_eq!(admin.extents(VmId(9), LinearIndex(0), &mut extents), Batch::Last);
        assert_eq!(admin.item_states(VM, LinearIndex(u32::MAX), &mut states), Batch::Last);
    }

    #[test]
    fn a_cursor_that_makes_no_sense_moves_nothing_that_may_not_be_moved() {
        let (mut broker, slot) = crowded();
        let [other, beyond] = [Slot(3), Slot(u32::MAX)];
        let (most, none) = (usize::MAX, LinearIndex(u32::MAX));
        let order = [(slot, most), (other, 0), (beyond, 0)].into();
        for (counted, gain) in [(0, i64::MAX), (1, i64::MIN), (most, i64::MAX)] {
            let group = vec![beyond, slot, slot, other];
            let candidate = Candidate { group, order: HashMap::clone(&order), counted, gain };
            let mut cursor = CompactCursor {
                next: none,
                taken: [slot].into_iter().collect(),
                candidate: Some(candidate),
                work: u32::MAX,
            };
            let admin: &mut dyn Admin = &mut broker;
            while admin.compact(VM, &mut cursor, CompactScope::All, &[]).unwrap().is_some() {}
            broker.check().unwrap();
            broker.give_up_move(slot);
        }
    }

    #[test]
    fn what_would_contradict_what_the_broker_knows_is_refused() {
        let (mut broker, _) = crowded();
        broker.register(VmId(4), 1).unwrap();
        let admin: &mut dyn Admin = &mut broker;
        assert_eq!(admin.rename(VmId(4), VM), Err(BrokerError::VmExists(VM)));
        assert_eq!(admin.set_merge_across_nodes(false), Err(BusyError { slots: 1 }));
        assert_eq!(admin.set_merge_across_nodes(true), Ok(()));
        broker.check().unwrap();
    }
}
