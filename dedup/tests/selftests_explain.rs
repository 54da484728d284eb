//! What is said of a page: one test, one VM state after another, for each reason there is.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use common::{TestVm, config, engine, page, settle};
use pagefold_dedup::{
    DedupMode, Engine, EngineConfig, Explanation, Knobs, LinearIndex, PAGE_SIZE, PageState, Reason,
    Run, Slot, Step, VmId,
};

fn explain(engine: &Engine, vm: &TestVm, number: usize) -> Explanation {
    engine.explain(vm.id, (number * PAGE_SIZE) as u64).unwrap()
}

fn reason(engine: &Engine, vm: &TestVm, number: usize) -> Reason {
    let explanation = explain(engine, vm, number);
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

#[test]
fn a_page_whose_contents_slots_are_all_full_says_so_and_is_shared_with_the_next_like_it() {
    let mut engine = Engine::new(common::sharing_limit(2)).unwrap();
    let vm = TestVm::attached(&mut engine, 0, 8);
    (0..3).for_each(|number| vm.write(number, &page(7)));
    settle(&mut engine);
    let reasons: Vec<Reason> = (0..3).map(|number| reason(&engine, &vm, number)).collect();
    let single = reasons.iter().position(|reason| *reason == Reason::SlotsFull).unwrap();
    assert_eq!(reasons.iter().filter(|reason| **reason == Reason::Shared).count(), 2);
    let explanation = explain(&engine, &vm, single);
    assert_eq!(explanation.state, PageState::Unshared);
    let sharers: Vec<u64> = explanation.dups.iter().map(|dup| dup.sharers).collect();
    assert_eq!(sharers, [2], "the full slot is named");
    assert!(explanation.to_string().contains("max_page_sharing"), "{explanation}");
    vm.write(5, &page(7));
    settle(&mut engine);
    assert_eq!(reason(&engine, &vm, single), Reason::Shared);
}

#[test]
fn a_twin_on_another_numa_node_is_named_by_the_node_and_one_in_another_domain_by_that() {
    let knobs = Knobs { merge_across_nodes: false, ..Knobs::default() };
    let mut engine = Engine::new(EngineConfig { knobs, ..config() }).unwrap();
    let vms = [0, 1, 2].map(|id| TestVm::attached(&mut engine, id, 8));
    engine.set_numa_node(vms[1].id, 1).unwrap();
    engine.set_numa_node(vms[2].id, 2).unwrap();
    let other = TestVm::new(3, 8);
    other.attach(&mut engine, "other", DedupMode::On);
    engine.set_numa_node(other.id, 3).unwrap();
    // Page 0 everywhere, twice on node 0; page 1 on two nodes; page 2 on one, and page 3 elsewhere.
    for vm in &vms {
        vm.write(0, &page(7));
    }
    vms[0].write(7, &page(7));
    for vm in &vms[..2] {
        vm.write(1, &page(8));
    }
    vms[1].write(2, &page(9));
    vms[1].write(3, &page(10));
    other.write(3, &page(10));
    settle(&mut engine);
    assert_eq!(reason(&engine, &vms[0], 0), Reason::Shared);
    assert_eq!(reason(&engine, &vms[1], 0), Reason::OtherNode(vec![0, 2]));
    assert_eq!(reason(&engine, &vms[2], 0), Reason::OtherNode(vec![0, 1]));
    assert_eq!(reason(&engine, &vms[0], 1), Reason::OtherNode(vec![1]));
    assert_eq!(reason(&engine, &vms[1], 1), Reason::OtherNode(vec![0]));
    assert_eq!(reason(&engine, &vms[1], 2), Reason::NoTwin);
    assert_eq!(reason(&engine, &vms[1], 3), Reason::OtherDomain(vec!["other".to_owned()]));
    assert_eq!(reason(&engine, &other, 3), Reason::OtherDomain(vec!["test".to_owned()]));
    let words = explain(&engine, &vms[1], 0).to_string();
    assert!(words.contains("(0, 2; set merge_across_nodes=1)"), "{words}");
}

#[test]
fn a_page_that_is_matched_in_the_middle_of_a_pass_is_about_to_be_merged() {
    let mut engine = engine();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, 8));
    for vm in &vms {
        (0..8).for_each(|number| vm.write(number, &page(number as u32)));
    }
    engine.pass();
    engine.set_knobs(Knobs { pages_to_scan: 16, ..engine.knobs() }).unwrap();
    assert!(matches!(engine.step(), Step::More), "all is looked at, and nothing merged");
    engine.check().unwrap();
    for (vm, number) in vms.iter().flat_map(|vm| (0..8).map(move |number| (vm, number))) {
        assert_eq!(reason(&engine, vm, number), Reason::Matched);
    }
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_unshared), (0, 16), "they are not forgotten");
    assert_eq!([0, 1].map(|vm: usize| stats.vms[vm].unshared_pages), [8, 8]);
    settle(&mut engine);
    assert_eq!(reason(&engine, &vms[0], 0), Reason::Shared);
    assert_eq!(engine.stats().pages_unshared, 0);
}

#[test]
fn a_matched_page_for_which_the_store_has_no_slot_says_so_until_it_has() {
    let mut engine = small_store(1);
    let vm = TestVm::attached(&mut engine, 0, 8);
    (0..4).for_each(|number| vm.write(number, &page(number as u32 / 2)));
    settle(&mut engine);
    let reasons = [0, 1, 2, 3].map(|number| reason(&engine, &vm, number));
    assert_eq!(reasons, [Reason::Shared, Reason::Shared, Reason::StoreFull, Reason::StoreFull]);
    let words = explain(&engine, &vm, 2).to_string();
    assert!(words.contains("raise store_pages"), "{words}");
    assert_eq!(engine.stats().pages_unshared, 2);
    engine.discard(vm.id, LinearIndex(0), 2).unwrap();
    settle(&mut engine);
    assert_eq!([2, 3].map(|number| reason(&engine, &vm, number)), [Reason::Shared, Reason::Shared]);
    assert_eq!(engine.stats().pages_unshared, 0);
}

#[test]
fn a_page_that_nothing_has_said_was_written_is_not_said_to_have_no_twin() {
    let (mut engine, a, _b) = twins();
    a.memory.write(6 * PAGE_SIZE, &page(0));
    assert_eq!(reason(&engine, &a, 6), Reason::Unseen);
    // The sweep finds it.
    settle(&mut engine);
    assert_eq!(reason(&engine, &a, 6), Reason::Shared);
}

#[test]
fn the_reasons_are_called_in_json_what_they_are_called_here() {
    let json = |reason: &Reason| serde_json::to_string(reason).unwrap();
    assert_eq!(json(&Reason::Matched), r#"{"kind":"matched"}"#);
    assert_eq!(json(&Reason::StoreFull), r#"{"kind":"store_full"}"#);
    assert_eq!(json(&Reason::SlotsFull), r#"{"kind":"slots_full"}"#);
    assert_eq!(json(&Reason::OtherNode(vec![0, 2])), r#"{"kind":"other_node","detail":[0,2]}"#);
    assert_eq!(json(&Reason::Unseen), r#"{"kind":"unseen"}"#);
}

/// Engine whose domains have so many slots.
fn small_store(store_pages: u32) -> Engine {
    Engine::new(EngineConfig { store_pages: Some(store_pages), ..config() }).unwrap()
}

/// Counts what is said of each page of a VM by itself, as `VmStats` counts all of them: merging,
/// zero, unshared, deferred, volatile.
fn count_states(engine: &Engine, vm: &TestVm, pages: usize) -> [u64; 5] {
    let mut counts = [0; 5];
    for number in 0..pages {
        let explanation = explain(engine, vm, number);
        let counted = match explanation.state {
            _ if explanation.reason == Reason::OptedOut => continue,
            PageState::Shared(_) => 0,
            PageState::Zero => 1,
            PageState::Unshared => 2,
            PageState::Deferred => 3,
            PageState::Volatile => 4,
            PageState::Loose => continue,
        };
        counts[counted] += 1;
    }
    counts
}

#[test]
fn every_page_that_is_there_is_in_just_one_counter_and_the_kernel_has_as_many() {
    // Room for four contents, and for two mappings of several pages, but none of a single one.
    let config = EngineConfig { store_pages: Some(4), max_mappings: Some(5), ..config() };
    let mut engine = Engine::new(config).unwrap();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, 64));
    for vm in &vms {
        (0..4).for_each(|number| vm.write(number, &page(number as u32)));
        (8..11).for_each(|number| vm.write(number, &[0; PAGE_SIZE]));
    }
    let [a, b] = &vms;
    settle(&mut engine);
    // A fifth content, for which there is no slot, in both; one to each; and a copy of what is
    // shared for which there is no mapping, with a page that is not to be folded.
    for vm in &vms {
        vm.write(16, &page(16));
    }
    a.write(17, &page(17));
    b.write(17, &page(18));
    a.write(20, &page(1));
    engine.set_mergeable(a.id, LinearIndex(24), 8, false).unwrap();
    a.write(25, &page(2));
    settle(&mut engine);
    // Broken, and looked at by no pass yet that could find them unchanged.
    a.write(2, &page(30));
    a.write(32, &page(31));
    engine.pass();
    engine.check().unwrap();

    let reasons = [0, 8, 16, 17, 20, 25, 2, 32, 40].map(|number| reason(&engine, a, number));
    let expected = [
        Reason::Shared,
        Reason::Zero,
        Reason::StoreFull,
        Reason::NoTwin,
        Reason::Budget,
        Reason::OptedOut,
        Reason::Volatile,
        Reason::Volatile,
        Reason::Absent,
    ];
    assert_eq!(reasons, expected);
    let stats = engine.stats();
    let counts = [0, 1].map(|vm: usize| {
        let vm = &stats.vms[vm];
        let counts = [
            vm.merging_pages,
            vm.zero_pages,
            vm.unshared_pages,
            vm.deferred_pages,
            vm.volatile_pages,
        ];
        let [_, _, unshared, deferred, volatile] = counts;
        // By the kernel's account, with the page that is not to be folded.
        let opted_out = u64::from(vm.id == a.id.0);
        let private = (unshared + deferred + volatile + opted_out) * PAGE_SIZE as u64;
        assert_eq!(vm.private_bytes, Some(private), "{vm:?}");
        counts
    });
    assert_eq!(counts, [[3, 3, 2, 1, 2], [4, 3, 2, 0, 0]]);
    assert_eq!(counts, [count_states(&engine, a, 64), count_states(&engine, b, 64)]);
    // Eleven pages of the one and nine of the other are there, or were before they were folded.
    assert_eq!(counts.map(|counts| counts.iter().sum::<u64>()), [11, 9]);
    assert_eq!((stats.pages_shared, stats.pages_shared + stats.pages_sharing), (4, 7));
    assert_eq!((stats.pages_unshared, stats.domains[0].pages_unshared), (4, 4));
    assert_eq!((stats.pages_zero, stats.pages_volatile), (6, 2));

    // And so it stays while what is folded goes away.
    engine.set_knobs(Knobs { run: Run::Unmerge, ..engine.knobs() }).unwrap();
    (0..3).for_each(|_| drop(engine.pass()));
    engine.check().unwrap();
    let stats = engine.stats();
    for (vm, stats) in vms.iter().zip(&stats.vms) {
        let counts = count_states(&engine, vm, 64);
        assert_eq!(
            (counts[..4].iter().sum::<u64>(), counts[4]),
            (stats.deferred_pages, stats.volatile_pages)
        );
    }
}
