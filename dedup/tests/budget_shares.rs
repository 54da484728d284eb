//! What a budget of mappings buys near its limit, and who gets it.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::sync::Arc;

use common::{TestVm, check_counters, page, settle};
use pagefold_dedup::{AnonymousMemory, Engine, EngineConfig, LinearIndex, PAGE_SIZE, PageState};

fn with_mappings(max_mappings: u64) -> Engine {
    let config = EngineConfig { max_mappings: Some(max_mappings), ..EngineConfig::default() };
    Engine::new(config).unwrap()
}

/// Two VMs with that many pairs of equal pages, each between two pages that no other has.
fn pairs(engine: &mut Engine, first_id: u32, count_pairs: u32) -> [TestVm; 2] {
    let vms = [0, 1].map(|n| TestVm::attached(engine, first_id + n, 2 * count_pairs));
    for vm in &vms {
        for number in 0..2 * count_pairs {
            vm.write(number as usize, &page(content(vm, first_id, number)));
        }
    }
    vms
}

fn content(vm: &TestVm, first_id: u32, number: u32) -> u32 {
    let whose = if number.is_multiple_of(2) { first_id } else { vm.id.0 };
    number + (2 * whose + number % 2) * 1_000_000
}

fn check_bytes(vms: &[TestVm; 2]) {
    for (vm, number) in
        vms.iter().flat_map(|vm| (0..vm.memory.len_bytes() / PAGE_SIZE).map(move |n| (vm, n)))
    {
        assert_eq!(vm.read(number), page(content(vm, vms[0].id.0, number as u32)));
    }
}

#[test]
fn savings_level_off_at_what_the_mappings_buy_and_never_fall() {
    let mut before = 0;
    for count_pairs in [50, 80, 95, 120, 200, 1000] {
        let mut engine = with_mappings(400);
        let vms = pairs(&mut engine, 0, count_pairs);
        settle(&mut engine);
        let stats = engine.stats();
        // A pair takes two mappings on either side.
        let bought = u64::from(count_pairs).min(400 / 4 * 9 / 10);
        assert!(stats.pages_sharing >= bought, "{count_pairs}: {}", stats.pages_sharing);
        assert!(stats.pages_sharing >= before, "{count_pairs}: {}", stats.pages_sharing);
        before = stats.pages_sharing;
        assert!(stats.vmas_used <= 400, "{count_pairs}: {}", stats.vmas_used);
        assert_eq!(stats.events.unshares, 0, "merged for a twin that was put off");
        check_counters(&engine);
        check_bytes(&vms);
    }
}

#[test]
fn what_vms_may_take_does_not_depend_on_others_whose_memory_has_moved() {
    let mut engine = with_mappings(400);
    for id in 10..14 {
        let vm = TestVm::attached(&mut engine, id, 64);
        // In two pieces, and in one again.
        for (first, count_pages) in [(32, 32), (0, 64)] {
            let place = Arc::new(AnonymousMemory::new(count_pages).unwrap());
            engine.relocate(vm.id, LinearIndex(first), count_pages, place).unwrap();
        }
        engine.detach(vm.id).unwrap();
    }
    let vms = pairs(&mut engine, 0, 1000);
    settle(&mut engine);
    let stats = engine.stats();
    assert!(stats.pages_sharing >= 400 / 4 * 9 / 10, "{}", stats.pages_sharing);
    check_counters(&engine);
    check_bytes(&vms);
}

#[test]
fn what_was_put_off_is_tried_again_when_something_has_changed_and_not_before() {
    let mut engine = with_mappings(400);
    let vms = pairs(&mut engine, 0, 1000);
    settle(&mut engine);
    let before = engine.stats();
    assert!(before.vms[0].deferred_pages > 800, "{before:?}");
    for _ in 0..5 {
        engine.pass();
    }
    let idle = engine.stats();
    assert_eq!(idle.events.pages_scanned, before.events.pages_scanned);
    assert_eq!(idle.events.budget_skips, before.events.budget_skips);
    // A few pairs are no more: as many others take their place, and no more are looked at than that.
    for number in (0..2000).step_by(2) {
        let state = engine.find(vms[0].id, number * PAGE_SIZE as u64).unwrap().state;
        if matches!(state, PageState::Shared(_)) {
            for vm in &vms {
                vm.write(number as usize, &page(8_000_000 + 2 * number as u32 + vm.id.0));
            }
        }
        if number > 60 {
            break;
        }
    }
    settle(&mut engine);
    let after = engine.stats();
    assert!(after.pages_sharing >= 90, "{after:?}");
    let scanned = after.events.pages_scanned - idle.events.pages_scanned;
    assert!(scanned < 500, "{scanned} pages were looked at again");
    check_counters(&engine);
}
