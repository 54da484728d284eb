//! How much work is due at a given rate.

/// Milliseconds of work that are made up for after a pause; what was due before is skipped.
pub const BACKLOG_MS: u32 = 250;

/// Turns time-stamp counter readings into numbers of things to do.
#[derive(Clone, Debug)]
pub struct Pace {
    per_s: u32,
    tsc_khz: u32,
    last: u64,
    /// Ticks times things per second: one thing is due for each `tsc_khz * 1000` of it.
    credit: u128,
}

impl Pace {
    /// A pace of `per_s` things per second that starts at time `now`.
    pub const fn new(per_s: u32, tsc_khz: u32, now: u64) -> Self {
        Self { per_s, tsc_khz, last: now, credit: 0 }
    }

    /// How many things have become due since the last call, at most what [`BACKLOG_MS`] makes due.
    ///
    /// A clock that has gone back makes nothing due.
    pub fn due(&mut self, now: u64) -> u32 {
        let backlog = u64::from(BACKLOG_MS) * u64::from(self.tsc_khz);
        let elapsed = now.saturating_sub(self.last).min(backlog);
        self.last = now;
        let unit = u128::from(self.tsc_khz).max(1) * 1000;
        self.credit += u128::from(elapsed) * u128::from(self.per_s);
        let due = self.credit / unit;
        self.credit %= unit;
        u32::try_from(due).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pause_makes_no_more_than_the_backlog_due() {
        let mut pace = Pace::new(1_000, 1_000, 0);
        assert_eq!(pace.due(3_600_000_000), BACKLOG_MS);
        assert_eq!(pace.due(3_600_001_000), 1);
    }

    #[test]
    fn a_clock_that_goes_back_makes_nothing_due() {
        let mut pace = Pace::new(1_000, 1_000, 1_000_000);
        assert_eq!(pace.due(0), 0);
        assert_eq!(pace.due(2_000), 2);
    }

    #[test]
    fn extreme_rates_do_not_overflow() {
        let mut pace = Pace::new(u32::MAX, u32::MAX, 0);
        assert_eq!(pace.due(u64::MAX), u32::MAX / 4);
        assert_eq!(Pace::new(1, 0, 0).due(u64::MAX), 0);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_between_calls(
            per_s in 0u32..100_000, steps in prop::collection::vec(0u64..100_000, 1..200),
        ) {
            let mut pace = Pace::new(per_s, 1_000, 0);
            let mut now = 0;
            let mut total = 0;
            for step in steps {
                now += step;
                total += u64::from(pace.due(now));
            }
            prop_assert_eq!(total, now * u64::from(per_s) / 1_000_000);
        }
    }
}
