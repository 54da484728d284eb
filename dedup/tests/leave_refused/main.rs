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
    let is_refused = all.len() < limit.min(1 << 20);
    engine.leave_step();
    assert_eq!(engine.is_leave_put_off(leave), is_refused);
    assert_eq!(engine.is_leaving(leave), is_refused);
    assert!(!is_refused || !engine.can_leave(), "not at once again");
    drop(all);
    // The number is free, whoever has not left yet.
    next.attach(&mut engine, "test", DedupMode::On);
    assert_eq!(engine.is_leaving(leave), is_refused);
    settle(&mut engine);
    assert!(!engine.is_leaving(leave), "it was tried again");
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing), (PAGES.into(), PAGES.into()));
    assert_eq!(stats.events.errors, u64::from(is_refused));
    check_counters(&engine);
    for vm in [&other, &next] {
        (0..PAGES).for_each(|number| assert_eq!(vm.read(number as usize), page(number)));
    }
    assert!((0..PAGES).all(|number| one.read(number as usize) == [0; 4096]));
    engine.detach_and_discard(other.id);
    engine.detach_and_discard(next.id);
    assert_eq!(engine.stats().vmas_used, 0);
    assert!(engine.stats().domains.is_empty());
}
