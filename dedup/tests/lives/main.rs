//! Random lives: all that an engine's owner may do, in any order, mostly with fewer mappings than there is
//! to share.
//!
//! `PAGEFOLD_LIVES=FIRST..END` lives those of other seeds. A failure names its seed.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "page counts are small, and a failure is a panic that names its seed"
)]

#[path = "../common/mod.rs"]
mod common;
mod life;
mod resident;

use std::env;
use std::ops::Range;

use life::Life;

/// The seeds that are lived by default, and one that did not settle once.
const SEEDS: Range<u64> = 0..24;
const UNSETTLED: Range<u64> = 1113..1114;

/// Those that are lived with writers, which takes longer.
const RACED: Range<u64> = 0..12;

/// Says which life it was, if it does not end well.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "the life of seed {} failed; PAGEFOLD_LIVES={0}..{} repeats it",
                self.0,
                self.0 + 1
            );
        }
    }
}

/// The seeds that were asked for, or else `default`.
fn seeds<const COUNT: usize>(default: [Range<u64>; COUNT]) -> impl Iterator<Item = u64> {
    let given = env::var("PAGEFOLD_LIVES").ok().map(|text| {
        let ends = text.split_once("..");
        let ends = ends.and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
        ends.unwrap_or_else(|| {
            panic!("PAGEFOLD_LIVES={text}: FIRST..END, two numbers, is expected")
        })
    });
    given.map_or_else(|| Vec::from(default), |given| vec![given]).into_iter().flatten()
}

fn live(seeds: impl Iterator<Item = u64>, live: fn(Life)) {
    for seed in seeds {
        let _named = Named(seed);
        live(Life::new(seed));
    }
}

#[test]
fn every_life_settles_with_every_byte_right_and_within_its_mappings() {
    live(seeds([SEEDS, UNSETTLED]), Life::live);
}

#[test]
fn no_life_loses_a_write_that_races_it() {
    live(seeds([RACED]), Life::live_raced);
}
