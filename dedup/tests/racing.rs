//! No write is lost: writers race every step of the merge protocol and check their own memory.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::hint;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{TestVm, engine, settle};
use pagefold_dedup::PAGE_SIZE;

const PAGES: usize = 512;

/// Each step of the protocol happens at least so often before the race is over.
const ENOUGH: u64 = 1000;

/// The words that a page goes through: equal in both VMs for most of the time, and zero now and
/// then.
const WORDS: [u64; 5] = [1, 2, 0, 3, 0];

/// Writes random pages of both VMs, so that each pair is equal again shortly after it has become
/// different, until told to stop. Every write says what it found: a lost or a foreign one shows at
/// once. Returns the word that each page must hold.
fn write_and_check(
    one: &TestVm,
    other: &TestVm,
    pages: Range<usize>,
    stop: &AtomicBool,
) -> Vec<u64> {
    let mut writes = vec![0_usize; pages.len()];
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ pages.start as u64;
    while !stop.load(Ordering::Relaxed) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        let index = (random >> 33) as usize % pages.len();
        let (page, write) = (pages.start + index, writes[index]);
        let before = write.checked_sub(1).map_or(0, |write| WORDS[write % WORDS.len()]);
        let found = (
            one.swap(page, WORDS[write % WORDS.len()]),
            other.swap(page, WORDS[write % WORDS.len()]),
        );
        assert_eq!(found, (before, before), "page {page}, write {write}");
        writes[index] += 1;
        // Most pages rest from one pass to the next, or none would ever be merged.
        (0..random >> 51).for_each(|_| hint::spin_loop());
    }
    writes
        .iter()
        .map(|write| write.checked_sub(1).map_or(0, |write| WORDS[write % WORDS.len()]))
        .collect()
}

// Row 22.
#[test]
fn no_write_is_lost_while_pages_are_merged_broken_and_merged_again() {
    let mut engine = engine();
    let one = TestVm::attached(&mut engine, 0, PAGES as u32);
    let other = TestVm::attached(&mut engine, 1, PAGES as u32);
    // A tail that is the page's own in both VMs; without it, a page is zero when its word is.
    let tail = |page: usize| {
        if page.is_multiple_of(4) { 0 } else { page as u8 | 1 }
    };
    for page in 0..PAGES {
        one.poke(page, 4000, tail(page));
        other.poke(page, 4000, tail(page));
    }
    let stop = AtomicBool::new(false);
    let words = thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|half| {
                let (one, other, stop) = (&one, &other, &stop);
                let pages = half * PAGES / 2..(half + 1) * PAGES / 2;
                scope.spawn(move || write_and_check(one, other, pages, stop))
            })
            .collect();
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
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<u64>>()
    });
    let events = engine.stats().events;
    assert_eq!(events.errors, 0, "{events:?}");
    settle(&mut engine);
    for (page, word) in words.into_iter().enumerate() {
        let mut expected = [0; PAGE_SIZE];
        expected[..8].copy_from_slice(&word.to_le_bytes());
        expected[4000] = tail(page);
        assert!(one.read(page) == expected && other.read(page) == expected, "page {page}");
    }
    let stats = engine.stats();
    assert_eq!(stats.pages_shared + stats.pages_sharing + stats.pages_zero, 2 * PAGES as u64);
}
