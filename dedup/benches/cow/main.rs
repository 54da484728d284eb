//! What it costs to write a page that is shared: the copy that the kernel makes (the CoW break).
//!
//! 4000 pages in 2000 pairs, as in the kernel's `ksm_tests -C`, on real memory and with real merges:
//! one word is written to each page, in order, and each write is known to have broken its page.
//! Beside it the same writes to pages that nobody shares, to pages that ksmd has merged, and to
//! pages that are not there yet. Every round measures every row, each on fresh memory and in another
//! order than the round before, so that a noisy machine disturbs all of them alike; ratios are taken
//! within a round.
//!
//! ksmd's row needs root and a KSM that nobody else uses; its settings are put back after each
//! measurement, also on a panic, and without it the other rows are measured all the same.
//!
//! `cargo bench -p pagefold-dedup --bench cow [-- --json]`

#![allow(
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints rounded figures, and a failure is a panic"
)]

mod figures;
mod folded;
mod ksmd;
mod pages;
#[path = "../sys/mod.rs"]
mod sys;

use std::time::Duration;

use figures::Figures;
use folded::Layout;
use ksmd::Ksmd;
use pages::Pages;

const ROUNDS: usize = 31;

/// What the pages are when they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    ZeroFill,
    Unmerged,
    Pagefold,
    PagefoldRead,
    PagefoldPairs,
    Ksm,
}

impl Row {
    const ALL: [Self; 6] = [
        Self::ZeroFill,
        Self::Unmerged,
        Self::Pagefold,
        Self::PagefoldRead,
        Self::PagefoldPairs,
        Self::Ksm,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::ZeroFill => "zero-fill",
            Self::Unmerged => "unmerged",
            Self::Pagefold => "pagefold",
            Self::PagefoldRead => "pagefold-read",
            Self::PagefoldPairs => "pagefold-pairs",
            Self::Ksm => "ksm",
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::ZeroFill => "anonymous pages that are not there: the least that a fault costs",
            Self::Unmerged => "private pages, folded with no twin found: no fault",
            Self::Pagefold => "merged into long extents, not touched since the merge",
            Self::PagefoldRead => "the same, each read since: there, as ksmd leaves its pages",
            Self::PagefoldPairs => "merged, equal pages side by side: extents of 2 pages",
            Self::Ksm => "merged by ksmd, which is stopped before the writes",
        }
    }

    /// The time of the writes to all pages.
    fn measure(self) -> Duration {
        match self {
            Self::ZeroFill => Pages::absent().write_all(),
            Self::Unmerged => folded::measure(Layout::Distinct, false),
            Self::Pagefold => folded::measure(Layout::Halves, false),
            Self::PagefoldRead => folded::measure(Layout::Halves, true),
            Self::PagefoldPairs => folded::measure(Layout::Neighbours, false),
            Self::Ksm => match Ksmd::take() {
                Ok(ksmd) => ksmd.measure(),
                Err(reason) => panic!("ksmd was ours to use a moment ago: {reason}"),
            },
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if !has("--bench") {
        // `cargo test --benches`: it compiles, and that is all there is to test.
        return;
    }
    let refusal = Ksmd::take().err();
    let mut rows = Row::ALL.to_vec();
    rows.retain(|&row| row != Row::Ksm || refusal.is_none());
    for row in &rows {
        // Not counted: the first to use memory pays for what the host has not backed yet.
        row.measure();
    }
    let mut figures = Figures::default();
    for round in 0..ROUNDS {
        rows.rotate_left(1);
        let mut order = rows.clone();
        if round % 2 == 1 {
            order.reverse();
        }
        figures.add(order.into_iter().map(|row| (row, row.measure())));
    }
    if has("--json") {
        figures.print_json(refusal.as_deref());
    } else {
        figures.print_table(refusal.as_deref());
    }
}
