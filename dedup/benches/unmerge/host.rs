//! The machine by itself: pieces of work that take as long as a step, and have nothing to do with one.

use std::time::{Duration, Instant};

use pagefold_dedup::{AnonymousMemory, PAGE_SIZE};

use crate::population::page;

/// Pages of a piece: it is to take about as long as a step does.
const PIECE_PAGES: u32 = 512;

/// In all pieces.
pub(crate) const PAGES: u64 = 1 << 19;

/// Writes pages that nobody has written before; returns the time of each piece.
pub(crate) fn measure() -> Vec<Duration> {
    let pieces = PAGES / u64::from(PIECE_PAGES);
    // All stay until the end, so that the kernel has to find memory, as it has to for unmerged pages.
    let memories = (0..pieces).map(|_| AnonymousMemory::new(PIECE_PAGES).unwrap());
    let written = memories.map(|memory| {
        let began = Instant::now();
        for number in 0..PIECE_PAGES {
            memory.write(number as usize * PAGE_SIZE, &page(number));
        }
        (began.elapsed(), memory)
    });
    let (times, _memories): (Vec<Duration>, Vec<AnonymousMemory>) = written.unzip();
    times
}
