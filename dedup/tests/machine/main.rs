//! Settings of the whole machine that change what memory costs. They would disturb whatever else runs on it,
//! so these tests run only when they are asked for: `make machine-tests`, as root.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

#[path = "../common/mod.rs"]
mod common;
mod setting;
#[path = "../huge/sys/mod.rs"]
#[expect(dead_code, reason = "each test binary uses a part")]
mod sys;
mod throttled;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::{TestVm, check_counters, engine, page, settle, twins};
use pagefold_dedup::{DedupMode, GuestMemory, PAGE_SIZE};
use setting::Setting;

const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage";

/// One test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
#[ignore = "changes a setting of the whole machine: make machine-tests"]
fn a_store_takes_no_more_memory_where_shared_memory_has_huge_pages() {
    let _alone = alone();
    for (file, value) in [
        ("shmem_enabled", "always"),
        ("shmem_enabled", "within_size"),
        ("shmem_enabled", "force"),
        ("hugepages-64kB/shmem_enabled", "always"),
    ] {
        let _setting = match Setting::change(&format!("{HUGE_PAGES}/{file}"), value) {
            Ok(setting) => setting,
            Err(why) => {
                eprintln!("skipped: {why}");
                continue;
            }
        };
        // Until it is noticed.
        std::thread::sleep(Duration::from_millis(150));
        let mut engine = engine();
        let vms = twins(&mut engine, 600);
        settle(&mut engine);
        assert_eq!(engine.stats().pages_shared, 600);
        check_counters(&engine);
        // Every second slot goes, and its memory with it.
        (0..600).step_by(2).for_each(|number| vms[0].write(number, &page(10_000)));
        (0..600).step_by(2).for_each(|number| vms[1].write(number, &page(20_000)));
        settle(&mut engine);
        check_counters(&engine);
        for number in (1..600).step_by(2) {
            assert_eq!(vms[0].read(number), page(u32::try_from(number).unwrap()));
        }
    }
}

/// How many pieces of memory of a size the machine's programs have that are used in part.
fn count_used_in_part(size: &str) -> u64 {
    let path = format!("{HUGE_PAGES}/{size}/stats/nr_anon_partially_mapped");
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

#[test]
#[ignore = "changes a setting of the whole machine: make machine-tests"]
fn a_part_of_a_multi_size_huge_page_gives_its_memory_back() {
    const SIZE: &str = "hugepages-64kB";
    const PAGES: u32 = 2048;
    let _alone = alone();
    // In this order, because the larger is preferred.
    let settings = [("hugepages-2048kB/enabled", "never"), ("hugepages-64kB/enabled", "madvise")]
        .map(|(file, value)| Setting::change(&format!("{HUGE_PAGES}/{file}"), value));
    if let Some(why) = settings.iter().find_map(|setting| setting.as_ref().err()) {
        eprintln!("skipped: {why}");
        return;
    }
    let before = count_used_in_part(SIZE);
    let mut engine = engine();
    // One of every sixteen is the VM's own.
    let content = |vm: &TestVm, number: u32| {
        page(number + if number % 16 == 1 { 1_000_000 * (1 + vm.id.0) } else { 0 })
    };
    let vms = [0, 1].map(|id| {
        let vm = TestVm::new(id, PAGES);
        sys::want_huge_pages(&vm.memory.regions()[0]).unwrap();
        (0..PAGES).for_each(|number| vm.write(number as usize, &content(&vm, number)));
        vm
    });
    let pieces = || {
        let path = format!("{HUGE_PAGES}/{SIZE}/stats/nr_anon");
        std::fs::read_to_string(path).unwrap().trim().parse::<u64>().unwrap()
    };
    assert!(pieces() > u64::from(PAGES) / 16, "{} pieces", pieces());
    for vm in &vms {
        vm.attach(&mut engine, "test", DedupMode::On);
    }
    settle(&mut engine);
    check_counters(&engine);
    assert_eq!(count_used_in_part(SIZE), before, "the rest is split off, and free");
    assert!(pieces() < u64::from(PAGES) / 16, "{} pieces", pieces());
    for vm in &vms {
        (0..PAGES).for_each(|number| assert_eq!(vm.read(number as usize), content(vm, number)));
    }
    assert_eq!(engine.stats().pages_sharing * PAGE_SIZE as u64, u64::from(PAGES) * 15 / 16 * 4096);
}
