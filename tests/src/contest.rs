//! Pagefold and ksmd side by side.

use std::fmt;

use serde_json::{Value, json};

use crate::fold::{self, Cost};
use crate::images::Census;
use crate::ksm;

/// One fold of the same images by each of them.
#[derive(Debug, Clone)]
pub struct Round {
    /// Pagefold's.
    pub pagefold: fold::Fold,
    /// ksmd's.
    pub ksmd: ksm::Fold,
}

/// All rounds.
#[derive(Debug, Clone)]
pub struct Contest {
    /// What could be saved.
    pub census: Census,
    /// In the order in which they were run; at least one.
    pub rounds: Vec<Round>,
}

/// The middle and the ends of some numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle one, or half way between the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`; `None` if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[middle]);
        Some(Self { median, min, max })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, min, max } = self;
        write!(f, "{median:.3} ({min:.3} to {max:.3})")
    }
}

/// Elapsed over processor time from which on ksmd counts as having waited for a processor.
const MAX_WAITING: f64 = 1.2;

/// What is compared, and how it is found in a round: Pagefold's figure over ksmd's.
type Ratio = (&'static str, fn(&Round) -> f64);

const RATIOS: [Ratio; 6] = [
    ("saved_pages", |round| count(round.pagefold.saved_pages()) / count(round.ksmd.saved_pages())),
    ("elapsed", |round| {
        round.pagefold.converged.elapsed.div_duration_f64(round.ksmd.converged.elapsed)
    }),
    ("cpu", |round| round.pagefold.converged.cpu.div_duration_f64(round.ksmd.converged.cpu)),
    // Images do not change, so Pagefold need not find out whether they do; ksmd's first scan is for
    // nothing else.
    ("cpu_from_scan_2", |round| {
        let ksmd = round.ksmd.converged.cpu.saturating_sub(round.ksmd.first_scan.cpu);
        round.pagefold.converged.cpu.div_duration_f64(ksmd)
    }),
    ("elapsed_settled", |round| {
        round.pagefold.settled.elapsed.div_duration_f64(round.ksmd.settled.elapsed)
    }),
    ("cpu_settled", |round| round.pagefold.settled.cpu.div_duration_f64(round.ksmd.settled.cpu)),
];

impl Contest {
    /// Pagefold's figures over ksmd's, by name.
    pub fn ratios(&self) -> impl Iterator<Item = (&'static str, Spread)> {
        RATIOS.into_iter().filter_map(|(name, ratio)| {
            Some((name, Spread::of(self.rounds.iter().map(ratio).collect())?))
        })
    }

    /// Whether ksmd had a processor to itself in every round. It runs at low priority, so on a busy
    /// machine only the processor times can be compared.
    pub fn ksmd_ran_undisturbed(&self) -> bool {
        self.rounds.iter().all(|round| {
            let Cost { elapsed, cpu } = round.ksmd.settled;
            elapsed <= cpu.mul_f64(MAX_WAITING)
        })
    }

    /// Everything, for programs. Times are in seconds.
    pub fn json(&self) -> Value {
        let census = &self.census;
        let ratios: serde_json::Map<_, _> =
            self.ratios().map(|(name, spread)| (name.to_owned(), spread.json())).collect();
        json!({
            "census": {
                "pages": census.pages,
                "zero_pages": census.zero_pages,
                "distinct_pages": census.distinct_pages,
                "saveable_pages": census.saveable_pages(),
            },
            "rounds": self.rounds.iter().map(|round| self.round_json(round)).collect::<Vec<_>>(),
            "ratios": ratios,
            "ksmd_ran_undisturbed": self.ksmd_ran_undisturbed(),
        })
    }

    fn round_json(&self, round: &Round) -> Value {
        let Round { pagefold, ksmd } = round;
        json!({
            "pagefold": {
                "saved_pages": pagefold.saved_pages(),
                "pages_sharing": pagefold.stats.pages_sharing,
                "pages_zero": pagefold.stats.pages_zero,
                "saved_of_saveable": self.saved_part(pagefold.saved_pages()),
                "converged": cost_json(pagefold.converged),
                "settled": cost_json(pagefold.settled),
                "engine_cpu_s": pagefold.stats.cpu_seconds,
                "vmas": pagefold.stats.vmas_used,
                "verified": true,
            },
            "ksmd": {
                "saved_pages": ksmd.saved_pages(),
                "pages_sharing": ksmd.counters.pages_sharing,
                "ksm_zero_pages": ksmd.counters.zero_pages,
                "saved_of_saveable": self.saved_part(ksmd.saved_pages()),
                "converged": cost_json(ksmd.converged),
                "settled": cost_json(ksmd.settled),
                "first_scan": cost_json(ksmd.first_scan),
                "converged_scans": ksmd.converged_scans,
            },
        })
    }

    /// `pages` as a part of what could be saved; `None` where nothing could.
    fn saved_part(&self, pages: u64) -> Option<f64> {
        let saveable = self.census.saveable_pages();
        (saveable > 0).then(|| count(pages) / count(saveable))
    }
}

/// As tables for a person.
impl fmt::Display for Contest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Census { pages, zero_pages, distinct_pages } = self.census;
        let saveable = self.census.saveable_pages();
        writeln!(
            f,
            "{pages} pages: {zero_pages} zero, {distinct_pages} distinct others; {saveable} can be \
             saved\n"
        )?;
        writeln!(
            f,
            "round  side      saved   of saveable  converged s   CPU s   settled s   CPU s  sharing  \
             zero"
        )?;
        for (number, Round { pagefold, ksmd }) in (1..).zip(&self.rounds) {
            let stats = &pagefold.stats;
            self.line(
                f,
                number,
                "pagefold",
                pagefold.converged,
                pagefold.settled,
                [stats.pages_sharing, stats.pages_zero],
            )?;
            let counters = &ksmd.counters;
            self.line(
                f,
                number,
                "ksmd",
                ksmd.converged,
                ksmd.settled,
                [counters.pages_sharing, counters.zero_pages],
            )?;
        }
        writeln!(f, "\nPagefold / ksmd    median (min to max)")?;
        self.ratios().try_for_each(|(name, spread)| writeln!(f, "  {name:<16} {spread}"))?;
        if !self.ksmd_ran_undisturbed() {
            writeln!(
                f,
                "\nksmd had to wait for a processor: this machine is busy, so compare CPU times only."
            )?;
        }
        Ok(())
    }
}

impl Contest {
    fn line(
        &self,
        f: &mut fmt::Formatter<'_>,
        round: u32,
        side: &str,
        converged: Cost,
        settled: Cost,
        [sharing, zero]: [u64; 2],
    ) -> fmt::Result {
        let saved = sharing + zero;
        let part = match self.saved_part(saved) {
            Some(part) => format!("{:.2} %", part * 100.0),
            None => "-".to_owned(),
        };
        writeln!(
            f,
            "{round:>5}  {side:<8} {saved:>6} {part:>13} {:>12.3} {:>7.3} {:>11.3} {:>7.3} \
             {sharing:>8} {zero:>5}",
            converged.elapsed.as_secs_f64(),
            converged.cpu.as_secs_f64(),
            settled.elapsed.as_secs_f64(),
            settled.cpu.as_secs_f64(),
        )
    }
}

fn cost_json(cost: Cost) -> Value {
    json!({ "elapsed_s": cost.elapsed.as_secs_f64(), "cpu_s": cost.cpu.as_secs_f64() })
}

#[expect(clippy::cast_precision_loss, reason = "counts of pages are far below 2^53")]
fn count(pages: u64) -> f64 {
    pages as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_an_odd_number_and_between_two_of_an_even() {
        let spread = |values: &[f64]| Spread::of(values.to_vec());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }
}
