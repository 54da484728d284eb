//! The bytes of a slot are really lost here: its page is punched out of the store.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::{AnonymousMemory, AttachSpec, DedupMode, EngineConfig, Knobs, PageState, Unchanging};

const BYTES: [u8; PAGE_SIZE] = [0x5a; PAGE_SIZE];

/// A VM all of whose pages are equal, and how many may share a slot.
fn folded(count_pages: u32, max_page_sharing: u32) -> (Engine, Arc<AnonymousMemory>) {
    let knobs = Knobs { max_page_sharing, ..Knobs::default() };
    let mut engine = Engine::new(EngineConfig { knobs, ..EngineConfig::default() }).unwrap();
    let memory = Arc::new(AnonymousMemory::new(count_pages).unwrap());
    for page in 0..count_pages as usize {
        memory.write(page * PAGE_SIZE, &BYTES);
    }
    let spec = AttachSpec {
        domain: "test".to_owned(),
        mode: DedupMode::On,
        memory: Arc::clone(&memory) as _,
        changes: Box::new(Unchanging),
    };
    engine.attach(VmId(0), spec).unwrap();
    engine.settle(Duration::from_mins(1), Duration::ZERO);
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
    engine.domains["test"].broker.lose(lost);
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
    engine.domains["test"].broker.lose(lost);
    let report = engine.recover_slot("test", lost).unwrap();
    let (source, _) = report.recovered.unwrap();
    let copy = RecoverySource::PrivateCopy { vm: VmId(0), linear: LinearIndex(2) };
    assert_eq!(source, copy);
    assert_eq!((report.recovered_pages, report.affected.len()), (3, 0));
    (0..4).for_each(|page| assert_eq!(read(&memory, page), BYTES, "page {page}"));
    engine.settle(Duration::from_mins(1), Duration::ZERO);
    engine.check().unwrap();
}

#[test]
fn those_who_see_bytes_that_are_lost_for_good_are_named_and_nobody_else() {
    let (mut engine, memory) = folded(4, 256);
    let lost = slot(&engine, 0);
    memory.write(PAGE_SIZE, &[7]);
    engine.domains["test"].broker.lose(lost);
    let report = engine.recover_slot("test", lost).unwrap();
    assert_eq!((report.recovered, report.recovered_pages), (None, 0));
    let affected: Vec<u32> = report.affected.iter().map(|place| place.linear.0).collect();
    assert_eq!(affected.len(), 3);
    assert!(!affected.contains(&1), "page 1 has its own copy: {affected:?}");
    assert_eq!(read(&memory, 1)[0], 7);
    assert_eq!(read(&memory, 1)[1..], BYTES[1..]);
}

#[test]
fn slots_that_are_not_there_cannot_be_recovered() {
    let (mut engine, _memory) = folded(4, 256);
    assert!(engine.recover_slot("elsewhere", Slot(0)).is_err());
    assert!(engine.recover_slot("test", Slot(77)).is_err());
}
