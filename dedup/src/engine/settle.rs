//! When memory counts as settled.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::PassReport;

/// Passes in a row without work after which memory counts as settled: what changed during the first
/// has been looked at by the second.
const QUIET_PASSES: u32 = 2;

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

/// An attempt to fold everything that has been at rest since it began, pass by pass: for an owner of
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
    /// Begins an attempt that takes `limit` at most, and one pass at least.
    pub fn new(limit: Duration) -> Self {
        Self { since: Instant::now(), limit, passes: 0, quiet: 0 }
    }

    /// How long until time is up.
    pub fn time_left(&self) -> Duration {
        self.limit.saturating_sub(self.since.elapsed())
    }

    /// Takes note of a pass; says how the attempt ended, once it has.
    pub fn note(&mut self, pass: &PassReport) -> Option<SettleReport> {
        self.passes += 1;
        self.quiet = if pass.is_quiet() { self.quiet + 1 } else { 0 };
        let (settled, elapsed) = (self.quiet == QUIET_PASSES, self.since.elapsed());
        (settled || elapsed >= self.limit).then(|| SettleReport {
            settled,
            passes: self.passes,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        })
    }
}
