//! What was measured, and how it is printed.

use std::time::Duration;

use pagefold_dedup::PAGE_SIZE;

use crate::Row;
use crate::pages::COUNT;

/// One row's time over another's, and what it is called in JSON.
const RATIOS: [(Row, Row, &str); 7] = [
    (Row::Pagefold, Row::Unmerged, "pagefold_to_unmerged"),
    (Row::PagefoldRead, Row::Unmerged, "pagefold_read_to_unmerged"),
    (Row::Ksm, Row::Unmerged, "ksm_to_unmerged"),
    (Row::Pagefold, Row::Ksm, "pagefold_to_ksm"),
    (Row::PagefoldRead, Row::Ksm, "pagefold_read_to_ksm"),
    (Row::PagefoldPairs, Row::Pagefold, "pagefold_pairs_to_pagefold"),
    (Row::Pagefold, Row::ZeroFill, "pagefold_to_zero_fill"),
];

/// Nanoseconds a page, by round and row.
#[derive(Default)]
pub(crate) struct Figures {
    rounds: Vec<Vec<(Row, f64)>>,
}

impl Figures {
    /// Adds a round: what the writes to all pages took, in each row.
    pub(crate) fn add(&mut self, round: impl Iterator<Item = (Row, Duration)>) {
        let per_page = |time: Duration| time.as_nanos() as f64 / f64::from(COUNT);
        self.rounds.push(round.map(|(row, time)| (row, per_page(time))).collect());
    }

    pub(crate) fn print_table(&self, ksm_refusal: Option<&str>) {
        let rounds = self.rounds.len();
        println!("{COUNT} pages, one write to each; {rounds} rounds\n");
        println!("{:<15}{:>12}{:>9}{:>10}", "row", "ns/page", "min", "MiB/s");
        for (row, spread) in self.rows() {
            let Spread { median, min, .. } = spread;
            let rate = mib_per_s(median);
            println!("{:<15}{median:>12.1}{min:>9.1}{rate:>10.0}  {}", row.name(), row.meaning());
        }
        if let Some(reason) = ksm_refusal {
            println!("{:<15}skipped: {reason}", Row::Ksm.name());
        }
        println!("\nratio of two rows of a round     median (min to max)");
        for (over, under, _) in RATIOS {
            if let Some(Spread { median, min, max }) = self.ratio(over, under) {
                let name = format!("{} / {}", over.name(), under.name());
                println!("  {name:<31}{median:>6.2} ({min:.2} to {max:.2})");
            }
        }
    }

    pub(crate) fn print_json(&self, ksm_refusal: Option<&str>) {
        let rounds = self.rounds.len();
        for (row, Spread { median, min, .. }) in self.rows() {
            println!(
                "{{\"row\":\"{}\",\"pages\":{COUNT},\"rounds\":{rounds},\"ns_median\":{median:.1},\
                 \"ns_min\":{min:.1},\"mib_per_s\":{:.1}}}",
                row.name(),
                mib_per_s(median)
            );
        }
        if let Some(reason) = ksm_refusal {
            let reason = reason.replace('\\', "\\\\").replace('"', "\\\"");
            println!("{{\"row\":\"{}\",\"skipped\":\"{reason}\"}}", Row::Ksm.name());
        }
        let ratios = RATIOS.map(|(over, under, name)| match self.ratio(over, under) {
            Some(spread) => format!(",\"{name}\":{:.3}", spread.median),
            None => format!(",\"{name}\":null"),
        });
        println!("{{\"row\":\"ratios\"{}}}", ratios.concat());
    }

    /// The rows that were measured, in the order in which they are printed.
    fn rows(&self) -> impl Iterator<Item = (Row, Spread)> {
        Row::ALL.into_iter().filter_map(|row| {
            let values = self.rounds.iter().filter_map(|round| time(round, row));
            Some((row, Spread::of(values.collect())?))
        })
    }

    /// `over` as a multiple of `under` in each round; `None` if one of them was not measured.
    fn ratio(&self, over: Row, under: Row) -> Option<Spread> {
        let ratio = |round: &Vec<_>| Some(time(round, over)? / time(round, under)?);
        Spread::of(self.rounds.iter().filter_map(ratio).collect())
    }
}

fn time(round: &[(Row, f64)], row: Row) -> Option<f64> {
    round.iter().find_map(|&(of, time)| (of == row).then_some(time))
}

fn mib_per_s(ns_per_page: f64) -> f64 {
    PAGE_SIZE as f64 / f64::from(1 << 20) / (ns_per_page / 1e9)
}

/// The middle and the ends of some numbers.
#[derive(Debug, Clone, Copy)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// `None` for no numbers.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let upper = values.len() / 2;
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[upper]);
        Some(Self { median, min, max })
    }
}
