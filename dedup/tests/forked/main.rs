//! Processes that are forked at any time: they may inherit what was mapped over guest memory a moment ago and is
//! not marked yet. Guests must not notice.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

#[path = "../common/mod.rs"]
mod common;
mod sys;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{TestVm, check_counters, engine, page, settle, twins};
use pagefold_dedup::{GuestMemory, PAGE_SIZE};
use sys::{Child, inherit};

const PAGES: u32 = 256;

/// What a page holds after so many rounds.
fn content(vm: u32, number: u32, round: u32) -> [u8; PAGE_SIZE] {
    // Every fourth page is the VM's own, and another one every round.
    let own = if (number + round).is_multiple_of(4) { 1 + vm } else { 0 };
    if (number + round) % 7 == 3 {
        [0; PAGE_SIZE]
    } else {
        page(number + 1000 * round + 1_000_000 * own)
    }
}

#[test]
fn a_child_that_inherits_guest_memory_and_slots_changes_nothing_for_guests() {
    let mut engine = engine();
    let vms = twins(&mut engine, PAGES);
    settle(&mut engine);
    let mut children = Vec::new();
    for round in 0..4 {
        for vm in &vms {
            // As if every mapping was made just before the fork.
            inherit(&vm.memory.regions()[0], true);
        }
        children.push(Child::fork().unwrap());
        for vm in &vms {
            inherit(&vm.memory.regions()[0], false);
        }
        // Slots go and are used again while children map them.
        for vm in &vms {
            for number in 0..PAGES {
                vm.write(number as usize, &content(vm.id.0, number, round));
            }
        }
        settle(&mut engine);
        check_counters(&engine);
        for vm in &vms {
            for number in 0..PAGES {
                assert_eq!(vm.read(number as usize), content(vm.id.0, number, round));
            }
        }
    }
    // All have lived till now.
    for child in children {
        child.end();
    }
    for vm in &vms {
        engine.detach(vm.id).unwrap();
        assert_eq!(vm.read(9), content(vm.id.0, 9, 3));
    }
}

#[test]
fn forks_race_merges_and_breaks_and_no_write_is_lost() {
    let mut engine = engine();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, PAGES));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut before = vec![0; PAGES as usize];
            let mut word = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                word += 1;
                for number in
                    (0..PAGES as usize).filter(|number| (number + word as usize).is_multiple_of(3))
                {
                    // Equal in both again a moment later, and zero now and then.
                    let next = word % 5;
                    for vm in &vms {
                        assert_eq!(vm.swap(number, next), before[number], "page {number}");
                    }
                    before[number] = next;
                }
                thread::yield_now();
            }
            before
        });
        let forker = scope.spawn(|| {
            let mut forks = 0;
            while !stop.load(Ordering::Relaxed) {
                Child::fork().unwrap().end();
                forks += 1;
            }
            forks
        });
        while engine.stats().events.merges < 4_000 && !writer.is_finished() {
            engine.pass();
        }
        stop.store(true, Ordering::Relaxed);
        let words = writer.join().unwrap();
        assert!(forker.join().unwrap() > 0);
        settle(&mut engine);
        check_counters(&engine);
        for (number, &word) in words.iter().enumerate() {
            for vm in &vms {
                assert_eq!(vm.swap(number, word), word);
            }
        }
    });
}
