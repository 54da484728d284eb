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
    /// What `pages_to_scan` was set to before the advisor first changed it.
    replaced: Option<u32>,
}

impl Advisor {
    /// Sets `pages_to_scan` after a pass that took `elapsed` and so much processor time.
    pub(super) fn advise(&mut self, knobs: &mut Knobs, elapsed: Duration, cpu: Duration) {
        if knobs.advisor_mode == AdvisorMode::None {
            return;
        }
        self.replaced.get_or_insert(knobs.pages_to_scan);
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

    /// Ends its work, if it is off in `next` and was not in `now`: `pages_to_scan` is again what it was set to,
    /// unless `next` has another value.
    pub(super) fn replace(&mut self, now: &Knobs, next: &mut Knobs) {
        if next.advisor_mode != AdvisorMode::None {
            return;
        }
        let advised = std::mem::take(self);
        if let Some(set) = advised.replaced
            && next.pages_to_scan == now.pages_to_scan
        {
            next.pages_to_scan = set;
        }
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
    fn without_the_advisor_pages_to_scan_is_what_was_set_again() {
        let mut knobs = Knobs { advisor_mode: AdvisorMode::ScanTime, ..Knobs::default() };
        let mut advisor = Advisor::default();
        for _ in 0..3 {
            advisor.advise(&mut knobs, Duration::from_secs(1), Duration::ZERO);
        }
        assert_ne!(knobs.pages_to_scan, Knobs::default().pages_to_scan);
        let mut next = Knobs { advisor_mode: AdvisorMode::None, ..knobs };
        advisor.replace(&knobs, &mut next);
        assert_eq!(next, Knobs::default());
        // Nor does it forget what is set then.
        let mut later = Knobs { pages_to_scan: 77, ..next };
        advisor.replace(&next, &mut later);
        assert_eq!(later.pages_to_scan, 77);
    }

    #[test]
    fn a_value_that_is_set_with_the_end_of_the_advisor_is_taken() {
        let mut knobs = Knobs { advisor_mode: AdvisorMode::ScanTime, ..Knobs::default() };
        let mut advisor = Advisor::default();
        advisor.advise(&mut knobs, Duration::from_secs(1), Duration::ZERO);
        let mut next = Knobs { advisor_mode: AdvisorMode::None, pages_to_scan: 77, ..knobs };
        advisor.replace(&knobs, &mut next);
        assert_eq!(next.pages_to_scan, 77);
    }

    #[test]
    fn without_an_advisor_nothing_changes() {
        let mut knobs = Knobs::default();
        Advisor::default().advise(&mut knobs, Duration::from_secs(1000), Duration::ZERO);
        assert_eq!(knobs, Knobs::default());
    }
}
