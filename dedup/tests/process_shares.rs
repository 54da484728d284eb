//! Fair shares of the mappings of a process, however many engines it has: alone in its process.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use common::{TestVm, check_counters, engine, page, settle};
use pagefold_dedup::Engine;

/// Passes in which a VM gives others what they lack, at most: a twentieth of the budget in each.
const PASSES: usize = 60;

/// A VM with twice as many pages, of which every second is not there, and each of the others is equal to
/// one other of the VM's.
fn doubled(engine: &mut Engine, id: u32, page_count: u32) -> TestVm {
    let vm = TestVm::attached(engine, id, 2 * page_count);
    (0..page_count).for_each(|number| vm.write(2 * number as usize, &content(number, page_count)));
    vm
}

fn content(number: u32, page_count: u32) -> [u8; pagefold_dedup::PAGE_SIZE] {
    page(number % (page_count / 2))
}

fn check_bytes(vm: &TestVm, page_count: u32) {
    (0..page_count)
        .for_each(|number| assert_eq!(vm.read(2 * number as usize), content(number, page_count)));
}

#[test]
fn a_vm_of_one_engine_gives_those_of_another_their_shares_back() {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let limit: u32 = limit.trim().parse().unwrap();
    // What the kernel allows, if each page takes two: more than the budget.
    let page_count = limit / 2;
    let [mut engine, mut other] = [engine(), engine()];
    let first = doubled(&mut engine, 0, page_count);
    settle(&mut engine);
    let alone = engine.stats();
    assert!(alone.vmas_used > alone.vmas_budget * 9 / 10, "{alone:?}");
    let newcomers = [1, 2].map(|id| doubled(&mut other, id, page_count / 2));
    for _ in 0..PASSES {
        engine.pass();
        other.pass();
    }
    let (gave, got) = (engine.stats(), other.stats());
    let share = gave.vmas_budget * 60 / 64 / 3;
    for vm in &got.vms {
        assert!(vm.vmas >= share * 7 / 8, "{vm:?}, a share is {share}");
    }
    assert!((share * 7 / 8..share * 9 / 8).contains(&gave.vmas_used), "{gave:?}");
    let saved = gave.pages_sharing + got.pages_sharing;
    assert!(saved >= alone.pages_sharing * 9 / 10, "{saved} of {}", alone.pages_sharing);
    [&engine, &other].into_iter().for_each(check_counters);
    check_bytes(&first, page_count);
    for vm in &newcomers {
        check_bytes(vm, page_count / 2);
    }
}
