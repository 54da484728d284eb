//! No write is lost: writers race every step of the merge protocol and check their own memory.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{RacedPages, TestVm, engine, settle};

const PAGES: usize = 512;

/// Where a page has a byte that is never written again.
const TAIL: usize = 4000;

/// Each step of the protocol happens at least so often before the race is over.
const ENOUGH: u64 = 1000;

#[test]
fn no_write_is_lost_while_pages_are_merged_broken_and_merged_again() {
    let mut engine = engine();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, PAGES as u32));
    // A tail that is the page's own in both VMs; without it, a page is zero when its word is.
    let tail = |page: usize| {
        if page.is_multiple_of(4) { 0 } else { page as u8 | 1 }
    };
    for (vm, page) in vms.iter().flat_map(|vm| (0..PAGES).map(move |page| (vm, page))) {
        vm.poke(page, TAIL, tail(page));
    }
    let stop = AtomicBool::new(false);
    let mut halves = [0, PAGES / 2].map(|first| RacedPages::new(first, PAGES / 2));
    thread::scope(|scope| {
        let (vms, stop) = (&vms, &stop);
        let writers = halves.each_mut().map(|half| scope.spawn(move || half.race(vms, stop)));
        loop {
            engine.pass();
            let events = engine.stats().events;
            let done = [events.merges, events.remerges, events.breaks, events.zero_discards];
            if done.iter().all(|&count| count > ENOUGH)
                || writers.iter().any(thread::ScopedJoinHandle::is_finished)
            {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let events = engine.stats().events;
    assert_eq!(events.errors, 0, "{events:?}");
    settle(&mut engine);
    for half in &halves {
        half.check(&vms, |page, rest| rest[TAIL - 8] = tail(page));
    }
    let stats = engine.stats();
    assert_eq!(stats.pages_shared + stats.pages_sharing + stats.pages_zero, 2 * PAGES as u64);
}
