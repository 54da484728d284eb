//! Passes, merges and moves that are cut short, on real mappings: nothing is left of them.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::collections::BTreeSet;

use common::{TestVm, check_counters, config, engine, page, settle, sharers, slot};
use pagefold_dedup::{
    CompactScope, DedupMode, Engine, EngineConfig, Knobs, LinearIndex, PAGE_SIZE, Run, Step, VmId,
};

// A VM that ends between two steps of a pass, at each step at which it can.
#[test]
fn a_vm_that_is_detached_in_the_middle_of_a_pass_leaves_no_page_slot_or_count() {
    let mut steps_of_a_pass = 1;
    let mut detach_after = 0;
    while detach_after < steps_of_a_pass {
        let knobs = Knobs { pages_to_scan: 5, ..Knobs::default() };
        let mut engine = Engine::new(EngineConfig { knobs, ..config() }).unwrap();
        let vms: Vec<TestVm> = (0..3).map(|id| TestVm::attached(&mut engine, id, 24)).collect();
        for vm in &vms {
            (0..24).for_each(|number| vm.write(number, &page(number as u32)));
        }
        // The first pass sees what was written, the second finds it unchanged and merges it.
        engine.pass();
        let mut steps = 0;
        loop {
            if steps == detach_after {
                engine.detach_and_discard(VmId(1));
                engine.check().unwrap();
            }
            steps += 1;
            if matches!(engine.step(), Step::Done(_)) {
                break;
            }
        }
        if detach_after == 0 {
            steps_of_a_pass = steps;
        }
        settle(&mut engine);
        check_counters(&engine);
        let stats = engine.stats();
        assert_eq!((stats.pages_shared, stats.pages_sharing), (24, 24), "at {detach_after}");
        for number in 0..24 {
            let found = sharers(&engine, slot(&engine, VmId(0), number));
            assert_eq!(found, BTreeSet::from([VmId(0), VmId(2)]));
            assert_eq!(vms[0].read(number), page(number as u32));
            assert_eq!(vms[2].read(number), page(number as u32));
            assert_eq!(vms[1].read(number), [0; PAGE_SIZE]);
        }
        detach_after += 1;
    }
    assert!(steps_of_a_pass > 10, "{steps_of_a_pass} steps");
}

// A partner that ends while both wait for the same slot, and all that are left end too.
#[test]
fn vms_that_come_and_go_between_steps_leave_nothing() {
    let knobs = Knobs { pages_to_scan: 7, ..Knobs::default() };
    let mut engine = Engine::new(EngineConfig { knobs, ..config() }).unwrap();
    for round in 0..40 {
        let vm = TestVm::attached(&mut engine, round, 24);
        (0..24).for_each(|number| vm.write(number, &page((number as u32 + round) % 30)));
        for _ in 0..round % 11 {
            engine.step();
        }
        if round >= 3 {
            engine.detach_and_discard(VmId(round - 3));
        }
        engine.check().unwrap();
    }
    settle(&mut engine);
    check_counters(&engine);
    (37..40).for_each(|id| engine.detach_and_discard(VmId(id)));
    let stats = engine.stats();
    assert_eq!((stats.vmas_used, stats.domains.len(), stats.saved_bytes), (0, 0, 0));
}

// No mapping to spare, for a merge, a discard, an unmerge and a move.
#[test]
fn a_budget_of_mappings_that_is_spent_leaves_every_count_exact() {
    let config = EngineConfig { max_mappings: Some(16), ..config() };
    let mut engine = Engine::new(config).unwrap();
    let (a, b) = (TestVm::attached(&mut engine, 0, 128), TestVm::attached(&mut engine, 1, 128));
    let place = |number: usize| (number * 77) % 128;
    for number in 0..128 {
        a.write(number, &page(number as u32));
        b.write(place(number), &page(number as u32));
    }
    let check = |engine: &Engine| {
        check_counters(engine);
        let stats = engine.stats();
        assert!(stats.vmas_used <= stats.vmas_budget, "{stats:?}");
    };
    settle(&mut engine);
    check(&engine);
    assert!(engine.stats().events.budget_skips > 0);
    let sharing = engine.stats().pages_sharing;

    // All holes in what is folded: those for which there is no mapping are not made, and said so.
    let mut discarded = BTreeSet::new();
    for number in (0..128).step_by(2) {
        let report = engine.discard(a.id, LinearIndex(number), 1).unwrap();
        assert_eq!(report.discarded_pages + report.kept_pages, 1);
        if report.discarded_pages == 1 {
            discarded.insert(number as usize);
        }
        check(&engine);
    }
    let read = |vm: &TestVm, number: usize| {
        let gone = vm.id == a.id && discarded.contains(&number);
        if gone { [0; PAGE_SIZE] } else { page(number as u32) }
    };
    let check_bytes = || {
        for number in 0..128 {
            assert_eq!(a.read(number), read(&a, number));
            assert_eq!(b.read(place(number)), read(&b, number));
        }
    };
    assert!(!discarded.is_empty() && discarded.len() < 64, "{discarded:?}");
    check_bytes();
    engine.compact(CompactScope::All);
    check(&engine);
    check_bytes();
    let knobs = engine.knobs();
    engine.set_knobs(Knobs { run: Run::Unmerge, ..knobs }).unwrap();
    engine.pass();
    check(&engine);
    check_bytes();
    engine.set_knobs(knobs).unwrap();
    settle(&mut engine);
    check(&engine);
    check_bytes();
    assert!(engine.stats().pages_sharing <= sharing.max(64));
}

// Found by the test above. What a VM did before it ended is neither lost nor taken off.
#[test]
fn a_pass_reports_what_it_did_although_a_vm_ended_meanwhile() {
    let knobs = Knobs { pages_to_scan: 4, ..Knobs::default() };
    let mut engine = Engine::new(EngineConfig { knobs, ..config() }).unwrap();
    let vms: Vec<TestVm> = (0..2).map(|id| TestVm::attached(&mut engine, id, 16)).collect();
    for vm in &vms {
        (0..16).for_each(|number| vm.write(number, &page(number as u32)));
    }
    settle(&mut engine);
    (0..16).for_each(|number| vms[0].write(number, &page(100 + number as u32)));
    engine.pass();
    let before = engine.stats().events;
    assert!(matches!(engine.step(), Step::More));
    engine.detach_and_discard(VmId(1));
    let report = engine.pass();
    let after = engine.stats().events;
    assert_eq!(report.scanned_pages, after.pages_scanned - before.pages_scanned);
    assert_eq!((report.scanned_pages, report.folded_pages), (16, 0));
}

#[test]
fn a_vm_that_is_switched_off_in_the_middle_of_a_pass_is_not_folded_by_the_rest_of_it() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 64);
    (0..64).for_each(|number| vm.write(number, &[0; PAGE_SIZE]));
    engine.pass();
    engine.set_knobs(Knobs { pages_to_scan: 4, ..engine.knobs() }).unwrap();
    engine.step();
    let given_back = engine.stats().events.zero_discards;
    assert!((1..64).contains(&given_back), "{given_back}");
    engine.set_mode(vm.id, DedupMode::Off).unwrap();
    engine.pass();
    engine.pass();
    let stats = engine.stats();
    assert_eq!((stats.events.zero_discards, stats.pages_zero), (given_back, 0));
    engine.set_mode(vm.id, DedupMode::On).unwrap();
    settle(&mut engine);
    assert_eq!(engine.stats().pages_zero, 64, "no page was forgotten");
}

/// Two VMs of so many equal pages, at the point of a pass at which all twins are found and none is
/// merged.
fn matched(page_count: u32) -> (Engine, TestVm, TestVm) {
    let mut engine = engine();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, page_count));
    for vm in &vms {
        (0..page_count).for_each(|number| vm.write(number as usize, &page(number)));
    }
    engine.pass();
    engine.set_knobs(Knobs { pages_to_scan: 256, ..engine.knobs() }).unwrap();
    while engine.stats().events.pages_scanned < 2 * u64::from(page_count) {
        engine.step();
    }
    assert_eq!(engine.stats().events.merges, 0);
    let [a, b] = vms;
    (engine, a, b)
}

#[test]
fn pages_that_are_opted_out_after_their_twin_was_found_are_not_merged() {
    let (mut engine, a, b) = matched(2048);
    engine.set_mergeable(a.id, LinearIndex(0), 1024, false).unwrap();
    engine.set_mergeable(b.id, LinearIndex(512), 1024, false).unwrap();
    settle(&mut engine);
    check_counters(&engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_sharing, stats.events.merges), (512, 1024));
}

#[test]
fn pages_of_a_vm_that_is_switched_off_after_their_twin_was_found_are_not_merged() {
    let (mut engine, a, _b) = matched(2048);
    engine.set_mode(a.id, DedupMode::Off).unwrap();
    settle(&mut engine);
    check_counters(&engine);
    assert_eq!(engine.stats().events.merges, 0);
}

#[test]
fn nothing_is_merged_any_more_once_everything_is_to_be_unmerged() {
    let (mut engine, _a, _b) = matched(2048);
    engine.set_knobs(Knobs { run: Run::Unmerge, ..engine.knobs() }).unwrap();
    engine.pass();
    engine.pass();
    check_counters(&engine);
    let stats = engine.stats();
    assert_eq!((stats.events.merges, stats.pages_unshared), (0, 0));
}

// Found with knobs that changed while there was no mapping to spare.
#[test]
fn a_merge_for_which_there_is_no_mapping_leaves_nothing_that_is_busy() {
    let config = EngineConfig { max_mappings: Some(1), ..config() };
    for to_zero in [false, true] {
        let mut engine = Engine::new(config).unwrap();
        let vm = TestVm::attached(&mut engine, 0, 64);
        for number in [3, 20, 40] {
            vm.write(number, &page(7));
        }
        settle(&mut engine);
        assert!(engine.stats().events.budget_skips > 0);
        if to_zero {
            for number in [3, 20, 40] {
                vm.write(number, &[0; PAGE_SIZE]);
            }
            settle(&mut engine);
        } else {
            engine.set_knobs(Knobs { run: Run::Unmerge, ..engine.knobs() }).unwrap();
            engine.pass();
        }
        check_counters(&engine);
        engine.set_knobs(Knobs { max_page_sharing: 8, ..engine.knobs() }).unwrap();
    }
}
