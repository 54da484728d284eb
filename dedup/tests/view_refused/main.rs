//! No address space for all of a store that is compared with: alone in its process, whose limit it lowers.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../store_refused/sys/mod.rs"]
mod sys;

use std::time::Duration;

use common::{check_counters, engine, page, settle, twins};
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

#[test]
fn pages_whose_slots_cannot_be_read_are_refused_and_nobody_waits_for_them() {
    let mut engine = engine();
    let vms = twins(&mut engine, PAGES);
    sys::limit_address_space(Some(address_space_bytes() + ROOM_BYTES));
    let report = engine.settle(Duration::from_mins(1), Duration::ZERO);
    assert!(report.settled, "{report:?}");
    let stats = engine.stats();
    // A run that goes beyond what can be read is refused as a whole.
    let readable = u64::from(FIRST_SLOTS - WINDOW_PAGES)..=u64::from(FIRST_SLOTS);
    assert!(readable.contains(&stats.pages_sharing), "{stats:?}");
    assert!(stats.events.errors > 0, "{stats:?}");
    check_counters(&engine);
    sys::limit_address_space(None);
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
    check_counters(&engine);
    for vm in &vms {
        (0..PAGES).for_each(|number| assert_eq!(vm.read(number as usize), page(number)));
    }
}
