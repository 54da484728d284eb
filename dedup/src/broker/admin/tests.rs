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
    let mut ask = |slot, room| AdminRequest::SlotSharers(slot, None, room).dispatch(&mut broker);
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
fn what_would_contradict_the_state_of_the_broker_is_refused() {
    let (mut broker, _) = crowded();
    broker.register(VmId(4), 1).unwrap();
    let admin: &mut dyn Admin = &mut broker;
    assert_eq!(admin.rename(VmId(4), VM), Err(BrokerError::VmExists(VM)));
    assert_eq!(admin.set_merge_across_nodes(false), Err(BusyError { slots: 1 }));
    assert_eq!(admin.set_merge_across_nodes(true), Ok(()));
    broker.check().unwrap();
}
