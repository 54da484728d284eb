//! Pages whose partners were written, or are gone, while mappings are short.

use std::time::Duration;

use pagefold_dedup::Engine;

use crate::common::{TestVm, check_counters, page, settle};
use crate::memory::{check_bytes, pairs, with_mappings};

// They kept two mappings each for ever, while they saved nothing and others were deferred.
#[test]
fn pages_that_are_left_alone_with_their_slots_leave_their_mappings_to_others() {
    const LIMIT: u64 = 4000;
    for is_detached in [true, false] {
        let mut engine = with_mappings(LIMIT);
        let alone = pairs(&mut engine, 0, 400);
        settle(&mut engine);
        assert_eq!(engine.stats().vms[0].merging_pages, 400);
        if is_detached {
            engine.detach(alone[1].id).unwrap();
        } else {
            for number in (0..800).step_by(2) {
                alone[1].write(number, &page(9_000_000 + number as u32));
            }
        }
        settle(&mut engine);
        assert_eq!(engine.stats().vms[0].merging_pages, 400, "a new partner finds them");
        let vms = pairs(&mut engine, 10, 2000);
        settle(&mut engine);
        let stats = engine.stats();
        assert!(stats.vms[0].vmas <= 1, "{stats:?}");
        assert!(stats.pages_sharing >= LIMIT / 4 * 9 / 10, "{stats:?}");
        check_counters(&engine);
        check_bytes(&vms);
        (0..5).for_each(|_| drop(engine.pass()));
        assert_eq!(engine.stats().events, stats.events, "nothing goes back and forth");
    }
}

/// Two VMs with the same pages, all of one run each, beside others that use up the mappings.
fn long_runs(engine: &mut Engine, page_count: u32) -> [TestVm; 2] {
    let vms = [0, 1].map(|id| TestVm::attached(engine, id, page_count));
    for number in 0..page_count {
        for vm in &vms {
            vm.write(number as usize, &page(90_000_000 + number));
        }
    }
    settle(engine);
    drop(pairs(engine, 10, 1000));
    settle(engine);
    vms
}

// They became private, which gave nothing back, and took two mappings each when their partners had their bytes again:
// single pages, which others were deferred for want of, and most of them not at all.
#[test]
fn pages_that_are_left_alone_among_others_wait_for_their_partners() {
    let mut engine = with_mappings(1000);
    let runs = long_runs(&mut engine, 4000);
    let before = engine.stats();
    assert!(before.vms.iter().any(|vm| vm.deferred_pages > 0), "{before:?}");
    let written = || (0..4000).step_by(2);
    written().for_each(|number| runs[1].write(number, &page(80_000_000 + number as u32)));
    settle(&mut engine);
    assert_eq!(engine.stats().events.unshares, before.events.unshares);
    written().for_each(|number| runs[1].write(number, &page(90_000_000 + number as u32)));
    settle(&mut engine);
    let after = engine.stats();
    assert_eq!(after.pages_sharing, before.pages_sharing, "{before:?}, then {after:?}");
    check_counters(&engine);
}

// Each pass looked at some nodes, and the next one was to look at others: for ever, where it takes more than two.
#[test]
fn pages_that_stay_alone_are_not_searched_for_for_ever() {
    let mut engine = with_mappings(1000);
    let runs = long_runs(&mut engine, 70_000);
    runs[1].write(5, &page(1));
    let report = engine.settle(Duration::from_mins(1), Duration::ZERO);
    assert!(report.settled && report.passes < 20, "{report:?}");
    assert_eq!(engine.stats().vms[0].merging_pages, 70_000);
}
