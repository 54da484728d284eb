//! The bytes of a slot are really lost here: its page is punched out of the store.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::protocol::Broker as _;
use crate::{
    AnonymousMemory, AttachSpec, CompactScope, DedupMode, EngineConfig, Knobs, PageState,
    Unchanging,
};

const BYTES: [u8; PAGE_SIZE] = [0x5a; PAGE_SIZE];

/// Passes until nothing is left to do.
fn settle(engine: &mut Engine) {
    let report = engine.settle(Duration::from_mins(1), Duration::ZERO);
    assert!(report.settled, "{report:?}");
}

/// A VM all of whose pages are equal, and how many may share a slot.
fn folded(page_count: u32, max_page_sharing: u32) -> (Engine, Arc<AnonymousMemory>) {
    let knobs = Knobs { max_page_sharing, ..Knobs::default() };
    let mut engine = Engine::new(EngineConfig { knobs, ..EngineConfig::default() }).unwrap();
    let memory = Arc::new(AnonymousMemory::new(page_count).unwrap());
    for page in 0..page_count as usize {
        memory.write(page * PAGE_SIZE, &BYTES);
    }
    let spec = AttachSpec {
        domain: "test".to_owned(),
        mode: DedupMode::On,
        memory: Arc::clone(&memory) as _,
        changes: Box::new(Unchanging),
    };
    engine.attach(VmId(0), spec).unwrap();
    settle(&mut engine);
    engine.check().unwrap();
    (engine, memory)
}

fn slot(engine: &Engine, page: u64) -> Slot {
    match engine.find(VmId(0), page * PAGE_SIZE as u64).unwrap().state {
        PageState::Shared(slot) => slot,
        state => panic!("page {page} is {state:?}"),
    }
}

fn read(memory: &AnonymousMemory, page: usize) -> [u8; PAGE_SIZE] {
    let mut bytes = [0; PAGE_SIZE];
    memory.read(page * PAGE_SIZE, &mut bytes);
    bytes
}

#[test]
fn a_lost_slot_comes_back_from_a_dup() {
    let (mut engine, memory) = folded(6, 3);
    let lost = slot(&engine, 0);
    engine.domains.get_mut("test").unwrap().local_broker().lose(lost);
    assert_ne!(read(&memory, 0), BYTES, "it is really lost");
    let report = engine.recover_slot("test", lost).unwrap();
    let (source, to) = report.recovered.unwrap();
    assert!(matches!(source, RecoverySource::Dup(dup) if dup != lost), "{source:?}");
    assert_eq!((report.recovered_pages, report.affected.len()), (3, 0));
    assert_eq!(slot(&engine, 0), to);
    (0..6).for_each(|page| assert_eq!(read(&memory, page), BYTES, "page {page}"));
    engine.check().unwrap();
    assert_eq!(engine.stats().pages_sharing, 4);
}

#[test]
fn a_lost_slot_comes_back_from_a_page_that_was_written_back() {
    let (mut engine, memory) = folded(4, 256);
    let lost = slot(&engine, 0);
    // Written, by the same bytes in the end: the page has its own copy.
    memory.write(2 * PAGE_SIZE, &[1]);
    memory.write(2 * PAGE_SIZE, &BYTES);
    engine.domains.get_mut("test").unwrap().local_broker().lose(lost);
    let report = engine.recover_slot("test", lost).unwrap();
    let (source, _) = report.recovered.unwrap();
    let copy = RecoverySource::PrivateCopy { vm: VmId(0), linear: LinearIndex(2) };
    assert_eq!(source, copy);
    assert_eq!((report.recovered_pages, report.affected.len()), (3, 0));
    (0..4).for_each(|page| assert_eq!(read(&memory, page), BYTES, "page {page}"));
    settle(&mut engine);
    engine.check().unwrap();
}

#[test]
fn those_who_see_bytes_that_are_lost_for_good_are_named_and_nobody_else() {
    let (mut engine, memory) = folded(4, 256);
    let lost = slot(&engine, 0);
    memory.write(PAGE_SIZE, &[7]);
    engine.domains.get_mut("test").unwrap().local_broker().lose(lost);
    let report = engine.recover_slot("test", lost).unwrap();
    assert_eq!((report.recovered, report.recovered_pages), (None, 0));
    let affected: Vec<u32> = report.affected.iter().map(|place| place.linear.0).collect();
    assert_eq!(affected.len(), 3);
    assert!(!affected.contains(&1), "page 1 has its own copy: {affected:?}");
    assert_eq!(read(&memory, 1)[0], 7);
    assert_eq!(read(&memory, 1)[1..], BYTES[1..]);
}

/// A VM whose first pages are those that are lost, which joins the domain when they are.
fn newcomer(engine: &mut Engine, id: u32, page_count: u32) -> Arc<AnonymousMemory> {
    let memory = Arc::new(AnonymousMemory::new(8).unwrap());
    for page in 0..page_count as usize {
        memory.write(page * PAGE_SIZE, &BYTES);
    }
    let spec = AttachSpec {
        domain: "test".to_owned(),
        mode: DedupMode::On,
        memory: Arc::clone(&memory) as _,
        changes: Box::new(Unchanging),
    };
    engine.attach(VmId(id), spec).unwrap();
    memory
}

#[test]
fn nobody_reads_a_slot_that_is_lost_for_good_and_pages_that_come_later_bring_it_back() {
    let (mut engine, memory) = folded(4, 256);
    let lost = slot(&engine, 0);
    engine.domains.get_mut("test").unwrap().local_broker().lose(lost);
    assert_eq!(engine.recover_slot("test", lost).unwrap().recovered, None);
    assert!(engine.move_slot("test", lost).is_err());
    assert_eq!(engine.compact(CompactScope::All).moved_slots, 0);
    // One page waits; two share a slot of their own.
    let _one = newcomer(&mut engine, 1, 1);
    settle(&mut engine);
    engine.check().unwrap();
    assert_eq!(engine.stats().pages_unshared, 1);
    let _other = newcomer(&mut engine, 2, 1);
    settle(&mut engine);
    engine.check().unwrap();
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing), (2, 3 + 1));
    assert_eq!(stats.events.declines, 0, "a page was compared with the lost one");

    let report = engine.recover_slot("test", lost).unwrap();
    assert!(matches!(report.recovered, Some((RecoverySource::Dup(_), _))), "{report:?}");
    assert_eq!((report.recovered_pages, report.affected.len()), (4, 0));
    (0..4).for_each(|page| assert_eq!(read(&memory, page), BYTES, "page {page}"));
    assert!(engine.recover_slot("test", lost).is_err(), "it is gone");
    settle(&mut engine);
    engine.check().unwrap();
    assert_eq!(engine.stats().events.declines, 0);
}

#[test]
fn a_page_that_waits_brings_a_lost_slot_back_and_then_shares_it() {
    let (mut engine, memory) = folded(4, 256);
    let lost = slot(&engine, 0);
    engine.domains.get_mut("test").unwrap().local_broker().lose(lost);
    assert_eq!(engine.recover_slot("test", lost).unwrap().recovered, None);
    let _other = newcomer(&mut engine, 1, 1);
    settle(&mut engine);
    let report = engine.recover_slot("test", lost).unwrap();
    let copy = RecoverySource::PrivateCopy { vm: VmId(1), linear: LinearIndex(0) };
    assert_eq!(report.recovered.map(|(source, _)| source), Some(copy));
    (0..4).for_each(|page| assert_eq!(read(&memory, page), BYTES, "page {page}"));
    settle(&mut engine);
    engine.check().unwrap();
    assert_eq!((engine.stats().pages_shared, engine.stats().pages_sharing), (1, 4));
}

#[test]
fn a_recovery_that_was_left_half_done_goes_on_without_a_look_at_the_lost_pages() {
    let (mut engine, memory) = folded(4, 256);
    let lost = slot(&engine, 0);
    // Written since the last pass: it has its own copy, and keeps it.
    memory.write(3 * PAGE_SIZE, &[7]);
    let broker = engine.domains.get_mut("test").unwrap().local_broker();
    broker.lose(lost);
    // As if the kernel had refused to map any page elsewhere.
    let to = broker.begin_recovery(lost, &BYTES).unwrap();
    broker.enqueue_moves();
    let mut directives = Vec::new();
    broker.directives(VmId(0), 9, &mut directives).unwrap();
    assert!(directives.is_empty(), "an agent would compare {directives:?}");
    assert_eq!(broker.begin_recovery(lost, &BYTES).unwrap(), to, "it is under way");
    assert_eq!(broker.give_up_moves(), 0, "nobody can go back");
    engine.check().unwrap();
    let before = engine.stats().events;
    engine.pass();
    (0..3).for_each(|page| assert_eq!(read(&memory, page), BYTES, "page {page}"));
    assert_eq!(slot(&engine, 0), to);
    assert_eq!(read(&memory, 3)[0], 7);
    let events = engine.stats().events;
    assert_eq!((events.moves - before.moves, events.declines, events.errors), (3, 0, 0));
    // The pass has found that the page with its own copy has left, too.
    assert!(engine.recover_slot("test", lost).is_err(), "nobody shares it any more");
}

#[test]
fn a_slot_that_fails_while_it_is_moved_is_recovered_from_where_it_goes() {
    let (mut engine, memory) = folded(4, 256);
    let lost = slot(&engine, 0);
    let broker = engine.domains.get_mut("test").unwrap().local_broker();
    let to = broker.begin_move(lost).unwrap();
    broker.lose(lost);
    let report = engine.recover_slot("test", lost).unwrap();
    assert_eq!(report.recovered, Some((RecoverySource::Dup(to), to)));
    (0..4).for_each(|page| assert_eq!(read(&memory, page), BYTES, "page {page}"));
    engine.pass();
    engine.check().unwrap();
    assert_eq!((engine.stats().events.declines, engine.stats().stable_node_dups), (0, 0));
}

#[test]
fn a_slot_that_fails_before_anybody_has_been_moved_there_is_given_up() {
    let (mut engine, memory) = folded(4, 256);
    let from = slot(&engine, 0);
    let broker = engine.domains.get_mut("test").unwrap().local_broker();
    let lost = broker.begin_move(from).unwrap();
    broker.lose(lost);
    assert!(engine.recover_slot("test", lost).is_err());
    engine.check().unwrap();
    engine.pass();
    assert_eq!(slot(&engine, 0), from);
    assert_eq!(engine.stats().events.declines, 0);
    (0..4).for_each(|page| assert_eq!(read(&memory, page), BYTES, "page {page}"));
}

#[test]
fn dups_are_not_joined_with_one_that_is_lost() {
    let (mut engine, memory) = folded(6, 3);
    let knobs = Knobs { stable_node_chains_prune_millisecs: 0, ..engine.knobs() };
    engine.set_knobs(knobs).unwrap();
    let lost = slot(&engine, 0);
    let broker = engine.domains.get_mut("test").unwrap().local_broker();
    broker.mark_lost(lost).unwrap();
    broker.lose(lost);
    let (in_lost, in_other): (Vec<u32>, Vec<u32>) =
        (0..6).partition(|&page| slot(&engine, page.into()) == lost);
    for page in [in_lost[0], in_lost[1], in_other[0]] {
        engine.discard(VmId(0), LinearIndex(page), 1).unwrap();
    }
    (0..3).for_each(|_| drop(engine.pass()));
    engine.check().unwrap();
    let stats = engine.stats();
    assert_eq!((stats.stable_node_dups, stats.events.moves, stats.events.declines), (2, 0, 0));
    let report = engine.recover_slot("test", lost).unwrap();
    assert_eq!((report.recovered_pages, report.affected.len()), (1, 0));
    let page = usize::try_from(in_lost[2]).unwrap();
    assert_eq!(read(&memory, page), BYTES);
}

#[test]
fn slots_that_are_not_there_cannot_be_recovered() {
    let (mut engine, _memory) = folded(4, 256);
    assert!(engine.recover_slot("elsewhere", Slot(0)).is_err());
    assert!(engine.recover_slot("test", Slot(77)).is_err());
}
