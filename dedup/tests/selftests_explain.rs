//! What is said of a page: one test, one VM state after another, for each reason there is.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use common::{TestVm, engine, page, settle};
use pagefold_dedup::{DedupMode, Engine, Knobs, LinearIndex, PAGE_SIZE, Reason, Run, Slot, VmId};

fn reason(engine: &Engine, vm: &TestVm, number: usize) -> Reason {
    let explanation = engine.explain(vm.id, (number * PAGE_SIZE) as u64).unwrap();
    assert_eq!(explanation.linear, LinearIndex(number as u32));
    assert!(!explanation.to_string().is_empty());
    explanation.reason
}

/// Two VMs with equal pages 0 to 3; the first has page 4 to itself, a zero page 5 and no page 6.
fn twins() -> (Engine, TestVm, TestVm) {
    let mut engine = engine();
    let (a, b) = (TestVm::attached(&mut engine, 0, 8), TestVm::attached(&mut engine, 1, 8));
    for number in 0..4 {
        a.write(number, &page(number as u32));
        b.write(number, &page(number as u32));
    }
    a.write(4, &page(4));
    a.write(5, &[0; PAGE_SIZE]);
    settle(&mut engine);
    (engine, a, b)
}

#[test]
fn a_page_is_shared_zero_absent_or_without_twin() {
    let (engine, a, b) = twins();
    assert_eq!(reason(&engine, &a, 0), Reason::Shared);
    assert_eq!(reason(&engine, &a, 4), Reason::NoTwin);
    assert_eq!(reason(&engine, &a, 5), Reason::Zero);
    assert_eq!(reason(&engine, &a, 6), Reason::Absent);
    let explanation = engine.explain(b.id, 17).unwrap();
    let mut sharers: Vec<VmId> = explanation.mappings.iter().map(|place| place.vm).collect();
    sharers.sort_unstable();
    assert_eq!((sharers, explanation.walk.items), (vec![a.id, b.id], 2));
    assert!(explanation.dups.is_empty());
    assert_eq!(engine.explain(a.id, 8 * PAGE_SIZE as u64), None, "beyond its memory");
    assert_eq!(engine.explain(VmId(9), 0), None, "not attached");
}

#[test]
fn a_page_that_is_written_is_broken_then_volatile_and_its_twin_alone() {
    let (mut engine, a, b) = twins();
    a.write(1, &page(100));
    assert_eq!(reason(&engine, &a, 1), Reason::Broken);
    engine.pass();
    assert_eq!(reason(&engine, &a, 1), Reason::Volatile);
    settle(&mut engine);
    assert_eq!(reason(&engine, &a, 1), Reason::NoTwin);
    assert_eq!(reason(&engine, &b, 1), Reason::Alone);
}

#[test]
fn what_was_opted_out_says_so_and_can_be_opted_in() {
    let (mut engine, a, b) = twins();
    engine.set_mergeable(a.id, LinearIndex(0), 2, false).unwrap();
    settle(&mut engine);
    assert_eq!(reason(&engine, &a, 0), Reason::OptedOut);
    assert_eq!(reason(&engine, &a, 2), Reason::Shared);
    assert_eq!(reason(&engine, &b, 0), Reason::Alone);
    engine.set_mergeable(a.id, LinearIndex(0), 2, true).unwrap();
    settle(&mut engine);
    assert_eq!(reason(&engine, &a, 0), Reason::Shared);
}

#[test]
fn what_the_mode_forbids_says_which_mode() {
    let (mut engine, a, _b) = twins();
    engine.set_mode(a.id, DedupMode::Zero).unwrap();
    settle(&mut engine);
    assert_eq!(reason(&engine, &a, 0), Reason::Mode(DedupMode::Zero));
    assert_eq!(reason(&engine, &a, 5), Reason::Zero);
    engine.set_mode(a.id, DedupMode::Off).unwrap();
    settle(&mut engine);
    assert_eq!(reason(&engine, &a, 0), Reason::Mode(DedupMode::Off));
    assert_eq!(reason(&engine, &a, 5), Reason::Mode(DedupMode::Off));
}

#[test]
fn a_twin_in_another_domain_is_named() {
    let (mut engine, a, _b) = twins();
    let other = TestVm::new(2, 8);
    other.attach(&mut engine, "other", DedupMode::On);
    other.write(3, &page(4));
    other.write(4, &page(0));
    settle(&mut engine);
    assert_eq!(reason(&engine, &a, 4), Reason::OtherDomain(vec!["other".to_owned()]));
    assert_eq!(reason(&engine, &other, 3), Reason::OtherDomain(vec!["test".to_owned()]));
    assert_eq!(reason(&engine, &other, 4), Reason::OtherDomain(vec!["test".to_owned()]));
    assert_eq!(reason(&engine, &a, 0), Reason::Shared);
}

#[test]
fn what_is_not_folded_because_nothing_runs_says_so() {
    let (mut engine, a, _b) = twins();
    let knobs = Knobs { run: Run::Stop, ..engine.knobs() };
    engine.set_knobs(knobs).unwrap();
    assert_eq!(reason(&engine, &a, 0), Reason::Shared, "what is shared stays so");
    assert_eq!(reason(&engine, &a, 4), Reason::NotRunning);
    let knobs = Knobs { run: Run::Unmerge, ..engine.knobs() };
    engine.set_knobs(knobs).unwrap();
    engine.pass();
    for number in [0, 4, 5] {
        assert_eq!(reason(&engine, &a, number), Reason::NotRunning);
    }
    assert_eq!(reason(&engine, &a, 6), Reason::Absent);
}

#[test]
fn the_other_slots_of_the_same_content_are_listed() {
    let mut engine = Engine::new(common::sharing_limit(3)).unwrap();
    let vm = TestVm::attached(&mut engine, 0, 9);
    (0..9).for_each(|number| vm.write(number, &page(7)));
    settle(&mut engine);
    let explanation = engine.explain(vm.id, 0).unwrap();
    assert_eq!((explanation.reason, explanation.mappings.len()), (Reason::Shared, 3));
    let slots: Vec<(Slot, u64)> =
        explanation.dups.iter().map(|dup| (dup.slot, dup.sharers)).collect();
    assert_eq!(slots.len(), 2);
    assert!(slots.iter().all(|&(_, sharers)| sharers == 3), "{slots:?}");
}
