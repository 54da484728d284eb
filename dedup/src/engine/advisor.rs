//! The advisor: sets `pages_to_scan` so that a pass takes a given time, within a share of a
//! processor.
//!
//! It follows KSM's scan-time advisor (`Documentation/admin-guide/mm/ksm.rst`): the new number is the
//! old one times how much too long the last pass took, smoothed, and cut where it would cost too
//! much processor time.

use std::time::Duration;

use crate::knobs::{AdvisorMode, Knobs};

/// How much of a new ratio goes into the smoothed one, as in the kernel.
const WEIGHT: f64 = 0.3;

/// What the advisor remembers from pass to pass.
#[derive(Debug, Default)]
pub(super) struct Advisor {
    /// The last pass's time over the target, smoothed.
    ratio: Option<f64>,
}

impl Advisor {
    /// Sets `pages_to_scan` after a pass that took `elapsed` and so much processor time.
    pub(super) fn advise(&mut self, knobs: &mut Knobs, elapsed: Duration, cpu: Duration) {
        if knobs.advisor_mode == AdvisorMode::None {
            self.ratio = None;
            return;
        }
        let elapsed = elapsed.as_secs_f64().max(1e-3);
        let ratio = elapsed / f64::from(knobs.advisor_target_scan_time);
        let ratio = match self.ratio {
            Some(before) => WEIGHT * ratio + (1.0 - WEIGHT) * before,
            None => ratio,
        };
        self.ratio = Some(ratio);
        let pages = f64::from(knobs.pages_to_scan);
        let used = cpu.as_secs_f64() / elapsed * 100.0;
        // Pages at which folding would use just what it may.
        let affordable = pages * f64::from(knobs.advisor_max_cpu) / used.max(0.01);
        let (min, max) = (knobs.advisor_min_pages_to_scan, knobs.advisor_max_pages_to_scan);
        let pages = (pages * ratio).min(affordable).clamp(f64::from(min), f64::from(max));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between two u32"
        )]
        let pages = pages as u32;
        knobs.pages_to_scan = pages;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advised(pages_to_scan: u32, elapsed_s: u64, cpu_s: u64) -> u32 {
        let mut knobs =
            Knobs { advisor_mode: AdvisorMode::ScanTime, pages_to_scan, ..Knobs::default() };
        let seconds = Duration::from_secs;
        Advisor::default().advise(&mut knobs, seconds(elapsed_s), seconds(cpu_s));
        knobs.pages_to_scan
    }

    #[test]
    fn a_pass_that_takes_too_long_is_sped_up_and_one_that_is_too_short_slowed_down() {
        assert_eq!(advised(1000, 200, 1), 1000, "as wanted");
        assert_eq!(advised(1000, 400, 1), 2000);
        assert_eq!(advised(4000, 100, 1), 2000);
    }

    #[test]
    fn it_stays_within_its_bounds() {
        assert_eq!(advised(1000, 1, 0), 500, "advisor_min_pages_to_scan");
        assert_eq!(advised(20_000, 400, 1), 30_000, "advisor_max_pages_to_scan");
    }

    #[test]
    fn it_does_not_use_more_processor_time_than_it_may() {
        assert_eq!(advised(10_000, 400, 400), 7000, "70 per cent of what took 100");
    }

    #[test]
    fn without_an_advisor_nothing_changes() {
        let mut knobs = Knobs::default();
        Advisor::default().advise(&mut knobs, Duration::from_secs(1000), Duration::ZERO);
        assert_eq!(knobs, Knobs::default());
    }
}
