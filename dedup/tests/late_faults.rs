//! A guest that writes pages in the moment in which they are made private: its page faults may come to a slot
//! that has just been given back.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::{check_counters, engine, settle, twins};
use pagefold_dedup::{DedupMode, LinearIndex};

const PAGES: usize = 512;

#[test]
fn page_faults_that_race_unmerging_leave_no_memory_in_slots_that_nobody_shares() {
    let mut engine = engine();
    let [one, other] = twins(&mut engine, PAGES as u32);
    for _ in 0..8 {
        for vm in [&one, &other] {
            engine.set_mergeable(vm.id, LinearIndex(0), PAGES as u32, true).unwrap();
            engine.set_mode(vm.id, DedupMode::On).unwrap();
            (0..PAGES).for_each(|page| vm.poke(page, 8, 0));
        }
        settle(&mut engine);
        assert_eq!(engine.stats().pages_shared, PAGES as u64);
        // The other's pages are the only sharers now.
        let next = AtomicUsize::new(PAGES);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut page, mut delay) = (PAGES, 0);
                loop {
                    match next.load(Ordering::Acquire) {
                        usize::MAX => break,
                        now if now == page => spin_loop(),
                        now => {
                            page = now;
                            // At another moment each time.
                            delay = (delay + 617) % 10_007;
                            (0..delay).for_each(|_| spin_loop());
                            other.poke(page, 8, 1);
                        }
                    }
                }
            });
            for page in 0..PAGES {
                next.store(page, Ordering::Release);
                for vm in [&one, &other] {
                    engine.set_mergeable(vm.id, LinearIndex(page as u32), 1, false).unwrap();
                }
                engine.pass();
            }
            next.store(usize::MAX, Ordering::Release);
        });
        engine.pass();
        check_counters(&engine);
        assert_eq!(engine.stats().pages_shared, 0);
    }
}
