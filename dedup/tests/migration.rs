//! Pages that the kernel moves to other frames (memory compaction) while they are folded and written. One that is on
//! its way looks to the page map as if it were swapped out.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use common::{TestVm, check_counters, engine, page, settle};

const COMPACT: &str = "/proc/sys/vm/compact_memory";
const PAGES: u32 = 4096;

/// Pages that the kernel has moved since the machine was started.
fn migrated_pages() -> u64 {
    let counters = fs::read_to_string("/proc/vmstat").unwrap();
    let line = counters.lines().find_map(|line| line.strip_prefix("pgmigrate_success "));
    line.map_or(0, |count| count.parse().unwrap())
}

/// The word that a page begins with after so many rounds: the same in all VMs, and zero now and then.
fn word(number: u32, round: u64) -> u64 {
    (u64::from(number) * 31 + round) % 5
}

#[test]
fn pages_that_are_moved_to_other_frames_meanwhile_keep_their_bytes_and_are_folded_in_the_end() {
    if let Err(error) = fs::write(COMPACT, "1") {
        eprintln!("skipped: {COMPACT} cannot be written: {error}");
        return;
    }
    let mut engine = engine();
    let vms = [0, 1, 2].map(|id| TestVm::attached(&mut engine, id, PAGES));
    for vm in &vms {
        for number in 0..PAGES {
            // Every third is zero but for its first word.
            let bytes = if number.is_multiple_of(3) { [0; _] } else { page(number) };
            vm.write(number as usize, &bytes);
            vm.swap(number as usize, word(number, 0));
        }
    }
    let before = migrated_pages();
    let stop = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::write(COMPACT, "1").unwrap();
            }
        });
        let writer = scope.spawn(|| {
            let mut rounds = vec![0; PAGES as usize];
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number = (number + 1237) % PAGES;
                let round = &mut rounds[number as usize];
                for vm in &vms {
                    let found = vm.swap(number as usize, word(number, *round + 1));
                    assert_eq!(found, word(number, *round), "page {number} of VM {}", vm.id);
                }
                *round += 1;
                if number.is_multiple_of(8) {
                    thread::yield_now();
                }
            }
            rounds
        });
        let enough = |engine: &pagefold_dedup::Engine| {
            let events = engine.stats().events;
            [events.merges, events.breaks, events.zero_discards].iter().all(|&count| count > 1000)
                && migrated_pages() - before > 10_000
        };
        while !enough(&engine) && !writer.is_finished() {
            engine.pass();
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    settle(&mut engine);
    check_counters(&engine);
    let stats = engine.stats();
    let folded = stats.pages_shared + stats.pages_sharing + stats.pages_zero;
    assert_eq!(folded, 3 * u64::from(PAGES), "{stats:?}");
    for (number, round) in (0..PAGES).zip(rounds) {
        let mut expected = if number.is_multiple_of(3) { [0; _] } else { page(number) };
        expected[..8].copy_from_slice(&word(number, round).to_le_bytes());
        for vm in &vms {
            assert!(vm.read(number as usize) == expected, "page {number} of VM {}", vm.id);
        }
    }
    eprintln!("{} pages were moved", migrated_pages() - before);
}
