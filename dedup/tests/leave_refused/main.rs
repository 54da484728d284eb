//! A VM that ends while the process is at its limit of mappings: alone in its process.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../common/mod.rs"]
mod common;
mod sys;

use common::{TestVm, check_counters, engine, page, settle};
use pagefold_dedup::DedupMode;
use sys::AllMappings;

const PAGES: u32 = 64;

fn fill(vm: &TestVm) {
    (0..PAGES).for_each(|number| vm.write(number as usize, &page(number)));
}

#[test]
fn a_vm_that_ends_at_the_limit_of_mappings_leaves_later_and_its_number_is_free_at_once() {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let mut engine = engine();
    let one = TestVm::attached(&mut engine, 0, PAGES);
    let other = TestVm::attached(&mut engine, 1, PAGES);
    let next = TestVm::new(0, PAGES);
    for vm in [&one, &other, &next] {
        fill(vm);
    }
    settle(&mut engine);

    let all = AllMappings::take(limit.min(1 << 20));
    let leave = engine.begin_detach_and_discard(one.id).unwrap();
    engine.leave_step();
    // One mapping is kept for just this, which does not help if others take it first.
    let is_put_off = engine.is_leave_put_off(leave);
    assert_eq!(engine.is_leaving(leave), is_put_off);
    assert!(!is_put_off || !engine.can_leave(), "not at once again");
    drop(all);
    // The number is free, whoever has not left yet.
    next.attach(&mut engine, "test", DedupMode::On);
    settle(&mut engine);
    assert!(!engine.is_leaving(leave), "it was tried again");
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing), (PAGES.into(), PAGES.into()));
    assert_eq!(stats.events.errors, u64::from(is_put_off));
    check_counters(&engine);
    for vm in [&other, &next] {
        (0..PAGES).for_each(|number| assert_eq!(vm.read(number as usize), page(number)));
    }
    assert!((0..PAGES).all(|number| one.read(number as usize) == [0; 4096]));

    // The kernel refuses whatever it is asked for.
    let errors = engine.stats().events.errors;
    let leave = engine.begin_detach_and_discard(other.id).unwrap();
    sys::without_mappings(|| engine.leave_step());
    assert!(engine.is_leaving(leave) && engine.is_leave_put_off(leave));
    assert!(!engine.can_leave(), "not at once again");
    assert_eq!(engine.stats().events.errors, errors + 1);
    let again = TestVm::attached(&mut engine, 1, PAGES);
    fill(&again);
    settle(&mut engine);
    assert!(!engine.is_leaving(leave), "it was tried again");
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
    assert!((0..PAGES).all(|number| other.read(number as usize) == [0; 4096]));
    check_counters(&engine);
    engine.detach_and_discard(again.id);
    engine.detach_and_discard(next.id);
    assert_eq!(engine.stats().vmas_used, 0);
    assert!(engine.stats().domains.is_empty());
}
