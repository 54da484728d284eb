//! What the mappings buy near their limit.

use std::sync::Arc;

use pagefold_dedup::{AnonymousMemory, LinearIndex, PAGE_SIZE, PageState};

use crate::common::{TestVm, check_counters, page, settle};
use crate::memory::{attach_all, check_bytes, doubled, pairs, sharing_in, with_mappings};

#[test]
fn savings_level_off_at_what_the_mappings_buy_and_never_fall() {
    let mut before = 0;
    for pair_count in [50, 80, 95, 120, 200, 1000] {
        let mut engine = with_mappings(400);
        let vms = pairs(&mut engine, 0, pair_count);
        settle(&mut engine);
        let stats = engine.stats();
        // A pair takes two mappings on either side.
        let bought = u64::from(pair_count).min(400 / 4 * 9 / 10);
        assert!(stats.pages_sharing >= bought, "{pair_count}: {}", stats.pages_sharing);
        assert!(stats.pages_sharing >= before, "{pair_count}: {}", stats.pages_sharing);
        before = stats.pages_sharing;
        assert!(stats.vmas_used <= 400, "{pair_count}: {}", stats.vmas_used);
        assert_eq!(stats.events.unshares, 0, "merged for a twin that was deferred");
        check_counters(&engine);
        check_bytes(&vms);
    }
}

// Slots were filled as long as there were mappings for one partner each, and what the others needed was not there
// then: 20,000 such pages in three images saved less than 9,000.
#[test]
fn what_many_vms_have_is_shared_by_all_of_them_however_much_there_is() {
    const LIMIT: u64 = 1200;
    for vm_count in [3, 4, 8] {
        let all: Vec<usize> = (0..vm_count).collect();
        let mut before = 0;
        for page_count in [30, 60, 120, 300, 1000] {
            let mut engine = with_mappings(LIMIT);
            let vms = sharing_in(&[(all.clone(), page_count)]);
            attach_all(&mut engine, &vms);
            settle(&mut engine);
            let stats = engine.stats();
            let case = format!("{vm_count} VMs, {page_count} pages: {}", stats.pages_sharing);
            // Two mappings on each side.
            let bought = LIMIT * 9 / 10 / (2 * vm_count as u64) * (vm_count as u64 - 1);
            let wanted = u64::from(page_count) * (vm_count as u64 - 1);
            assert!(stats.pages_sharing >= bought.min(wanted), "{case}");
            assert!(stats.pages_sharing >= before, "{case}");
            before = stats.pages_sharing;
            assert_eq!(stats.events.unshares, 0, "merged for a twin that was deferred");
            check_counters(&engine);
            for number in 0..page_count {
                let right = |vm: &TestVm| vm.read(2 * number as usize) == page(number);
                assert!(vms.iter().all(right), "{case}: page {number}");
            }
        }
    }
}

// An eighth of the budget was lent to nobody, whether anybody lacked anything or not.
#[test]
fn what_nobody_lacks_is_lent_however_many_vms_share_the_budget() {
    const LIMIT: u64 = 4000;
    for quiet_count in [1, 2, 6] {
        let mut engine = with_mappings(LIMIT);
        // Each shares two pages, and wants no more.
        let quiet: Vec<TestVm> =
            (10..10 + quiet_count).map(|id| doubled(&mut engine, id, 4)).collect();
        settle(&mut engine);
        let vms = pairs(&mut engine, 0, 2000);
        settle(&mut engine);
        let stats = engine.stats();
        assert!(stats.pages_sharing >= LIMIT / 4 * 9 / 10, "{quiet_count}: {stats:?}");
        check_counters(&engine);
        check_bytes(&vms);
        // It stays so.
        (0..5).for_each(|_| drop(engine.pass()));
        let later = engine.stats();
        assert_eq!(later.events.unmerges, stats.events.unmerges);
        assert_eq!(later.events.pages_scanned, stats.events.pages_scanned);
        drop(quiet);
    }
}

#[test]
fn what_vms_may_take_does_not_depend_on_others_whose_memory_has_moved() {
    let mut engine = with_mappings(400);
    for id in 10..14 {
        let vm = TestVm::attached(&mut engine, id, 64);
        // In two pieces, and in one again.
        for (first, page_count) in [(32, 32), (0, 64)] {
            let place = Arc::new(AnonymousMemory::new(page_count).unwrap());
            engine.relocate(vm.id, LinearIndex(first), page_count, place).unwrap();
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
fn what_was_deferred_is_tried_again_when_something_has_changed_and_not_before() {
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
