//! When memory counts as settled.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::PassReport;

/// Passes in a row without work after which memory counts as settled: what changed during the first
/// has been looked at by the second.
const QUIET_PASSES: u32 = 2;

/// How long after its time is up an attempt still waits for the end of a pass.
const MAX_LATE: Duration = Duration::from_secs(1);

/// How an attempt to fold everything ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleReport {
    /// Whether nothing is left to fold.
    pub settled: bool,
    /// Passes made.
    pub passes: u64,
    /// Time taken, in milliseconds.
    pub elapsed_ms: u64,
}

/// An attempt to fold everything that is unchanged since it began, pass by pass: for an owner of
/// an engine who has other things to do between passes. Begin with [`Engine::mark`].
///
/// [`Engine::mark`]: crate::Engine::mark
#[derive(Debug, Clone, Copy)]
pub struct Settling {
    since: Instant,
    limit: Duration,
    passes: u64,
    quiet: u32,
}

impl Settling {
    /// Begins an attempt that takes `limit` at most, and one pass at least, unless that takes a second more.
    pub fn new(limit: Duration) -> Self {
        Self { since: Instant::now(), limit, passes: 0, quiet: 0 }
    }

    /// How long until time is up.
    pub fn time_left(&self) -> Duration {
        self.limit.saturating_sub(self.since.elapsed())
    }

    /// Counts a pass; returns how the attempt ended, once it has.
    pub fn note(&mut self, pass: &PassReport) -> Option<SettleReport> {
        self.passes += 1;
        self.quiet = if pass.is_quiet() { self.quiet + 1 } else { 0 };
        let settled = self.quiet == QUIET_PASSES;
        (settled || self.time_left().is_zero()).then(|| self.report(settled))
    }

    /// How the attempt ended, if its time has been up for a second and no pass was over since then: other
    /// things may be done meanwhile that make passes long.
    pub fn overdue(&self) -> Option<SettleReport> {
        let is_overdue = self.since.elapsed() >= self.limit.saturating_add(MAX_LATE);
        is_overdue.then(|| self.report(false))
    }

    fn report(&self, settled: bool) -> SettleReport {
        let elapsed_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        SettleReport { settled, passes: self.passes, elapsed_ms }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn an_attempt_whose_time_is_up_waits_a_second_for_the_end_of_a_pass_and_no_longer() {
        let settling = Settling::new(Duration::from_millis(1));
        assert_eq!(settling.overdue(), None);
        thread::sleep(MAX_LATE + Duration::from_millis(1));
        let report = settling.overdue().expect("its time was up a second ago");
        assert!(!report.settled && report.passes == 0, "{report:?}");
        assert!(report.elapsed_ms >= 1001, "{report:?}");
        assert_eq!(Settling::new(Duration::MAX).overdue(), None);
    }
}
