//! No address space for all of a store that is compared with: alone in its process, whose limit it lowers.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../store_refused/sys/mod.rs"]
mod sys;

use std::time::Duration;

use common::{TestVm, check_counters, engine, page, settle};
use pagefold_dedup::PAGE_SIZE;

/// More than the first part of the view has slots, of which there is address space from the beginning.
const FIRST_SLOTS: u32 = 1 << 12;
const PAGES: u32 = FIRST_SLOTS + 500;

/// Pages of a run, at most.
const WINDOW_PAGES: u32 = 512;

/// What the process may map beyond what it has: less than the next part of the view.
const ROOM_BYTES: u64 = 12 << 20;

fn address_space_bytes() -> u64 {
    let sizes = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = sizes.split(' ').next().unwrap().parse().unwrap();
    pages * PAGE_SIZE as u64
}

/// Merges two VMs of the same contents, in these orders, with too little address space and then with enough.
/// Returns how many pages were saved with too little.
fn merge(contents: &[Vec<u32>; 2]) -> u64 {
    let mut engine = engine();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, PAGES));
    let all = || vms.iter().zip(contents);
    let pages =
        || all().flat_map(|(vm, contents)| contents.iter().enumerate().map(move |it| (vm, it)));
    pages().for_each(|(vm, (number, &content))| vm.write(number, &page(content)));
    sys::limit_address_space(Some(address_space_bytes() + ROOM_BYTES));
    let report = engine.settle(Duration::from_mins(1), Duration::ZERO);
    assert!(report.settled, "{report:?}");
    let stats = engine.stats();
    assert!(stats.events.errors > 0, "{stats:?}");
    check_counters(&engine);
    sys::limit_address_space(None);
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
    check_counters(&engine);
    pages().for_each(|(vm, (number, &content))| assert_eq!(vm.read(number), page(content)));
    stats.pages_sharing
}

#[test]
fn pages_whose_slots_cannot_be_read_are_refused_and_nobody_waits_for_them() {
    let in_order: Vec<u32> = (0..PAGES).collect();
    let sharing = merge(&[in_order.clone(), in_order.clone()]);
    // A run that goes beyond what can be read is refused as a whole.
    let readable = u64::from(FIRST_SLOTS - WINDOW_PAGES)..=u64::from(FIRST_SLOTS);
    assert!(readable.contains(&sharing), "{sharing}");
    // In one window with others, which are merged.
    let beyond = PAGES - FIRST_SLOTS;
    let mixed = (0..beyond).flat_map(|number| [FIRST_SLOTS + number, number]);
    let sharing = merge(&[in_order, mixed.chain(beyond..FIRST_SLOTS).collect()]);
    assert!(sharing >= u64::from(beyond), "{sharing}");
}
