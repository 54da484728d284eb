//! One budget of mappings for a process, however many engines it has: alone in its process.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use common::{TestVm, check_counters, engine, page, settle};

/// Pairs of equal pages, each between two that are not there: more than half of the mappings that the
/// kernel gives to a process by default.
const PAIRS: u32 = 9_000;

#[test]
fn two_engines_of_a_process_share_its_mappings_and_the_kernel_refuses_none() {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let limit: u64 = limit.trim().parse().unwrap();
    let mut engines = [engine(), engine()];
    let mut vms = Vec::new();
    for engine in &mut engines {
        for id in 0..2 {
            let vm = TestVm::attached(engine, id, 2 * PAIRS);
            (0..PAIRS).for_each(|number| vm.write(2 * number as usize, &page(number)));
            vms.push(vm);
        }
    }
    engines.iter_mut().for_each(settle);
    let stats = engines.each_ref().map(pagefold_dedup::Engine::stats);
    for stats in &stats {
        assert_eq!(stats.events.errors, 0, "{stats:?}");
        assert!(stats.pages_sharing > 0, "{stats:?}");
    }
    let used: u64 = stats.iter().map(|stats| stats.vmas_used).sum();
    assert!(used <= stats[1].vmas_budget, "{used} of {}", stats[1].vmas_budget);
    let present = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count() as u64;
    assert!(present < limit - limit / 16, "{present} mappings: others need some, too");
    engines.iter().for_each(check_counters);
    for vm in &vms {
        (0..PAIRS).for_each(|number| assert_eq!(vm.read(2 * number as usize), page(number)));
    }
}
