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

/// The seeds that are lived by default.
const SEEDS: Range<u64> = 0..24;

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

fn seeds() -> Range<u64> {
    let Ok(text) = env::var("PAGEFOLD_LIVES") else { return SEEDS };
    let ends =
        text.split_once("..").and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
    ends.unwrap_or_else(|| panic!("PAGEFOLD_LIVES={text}: FIRST..END, two numbers, is expected"))
}

fn live(seeds: Range<u64>, live: fn(Life)) {
    for seed in seeds {
        let _named = Named(seed);
        live(Life::new(seed));
    }
}

#[test]
fn every_life_settles_with_every_byte_right_and_within_its_mappings() {
    live(seeds(), Life::live);
}

#[test]
fn no_life_loses_a_write_that_races_it() {
    live(seeds(), Life::live_raced);
}
