//! Time, in ticks of the time-stamp counter.

use crate::sys::read_tsc;

/// Converts ticks and knows what time it is.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    khz: u32,
}

impl Clock {
    /// The clock of a counter with this frequency.
    pub(crate) const fn new(khz: u32) -> Self {
        Self { khz }
    }

    /// Now.
    #[expect(clippy::unused_self, reason = "whoever has no clock has no time")]
    pub(crate) fn now(self) -> u64 {
        read_tsc()
    }

    /// Ticks in so many milliseconds.
    pub(crate) fn ticks_in_ms(self, ms: u32) -> u64 {
        u64::from(ms) * u64::from(self.khz)
    }

    /// Ticks in so many microseconds.
    pub(crate) fn ticks_in_us(self, us: u32) -> u64 {
        u64::from(us) * u64::from(self.khz) / 1000
    }

    /// Whole microseconds in so many ticks, at most what a port takes.
    pub(crate) fn us_in(self, ticks: u64) -> u32 {
        let us = ticks.saturating_mul(1000) / u64::from(self.khz).max(1);
        u32::try_from(us).unwrap_or(u32::MAX)
    }
}
