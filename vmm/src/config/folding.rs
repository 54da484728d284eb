//! How VMs are folded.

use std::time::Duration;

use pagefold_dedup::EngineConfig;

/// As long as the knob `sleep_millisecs` can be.
const MAX_INTERVAL: Duration = Duration::from_hours(24);

/// How VMs are folded.
///
/// The pause between two passes is the longer one of the knob `sleep_millisecs` and an interval given
/// here, which `sleep_millisecs` cannot make shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupConfig {
    /// The time between passes while there is something to fold, or somebody waits for the end of
    /// folding: a page must be unchanged for so long to be shared. `sleep_millisecs` can make it longer. At
    /// most a day.
    pub busy_interval: Duration,
    /// The time between passes once two in a row have folded nothing, or `sleep_millisecs` if that is
    /// longer. When a VM is attached, started or resumed, or its guest is ready, the busy interval holds
    /// again. At most a day.
    pub idle_interval: Duration,
    /// The engine's limits.
    pub engine: EngineConfig,
}

impl Default for DedupConfig {
    fn default() -> Self {
        Self {
            busy_interval: Duration::from_millis(150),
            idle_interval: Duration::from_secs(1),
            engine: EngineConfig::default(),
        }
    }
}

/// An interval of a [`DedupConfig`] is longer than a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{name} is at most a day, not {value:?}")]
pub struct IntervalError {
    /// The field.
    pub name: &'static str,
    /// What it was to be.
    pub value: Duration,
}

impl DedupConfig {
    /// Verifies the intervals. The engine's limits and the knobs have checks of their own.
    ///
    /// # Errors
    ///
    /// The first that is longer than a day.
    pub(crate) fn check_intervals(&self) -> Result<(), IntervalError> {
        let intervals =
            [("busy_interval", self.busy_interval), ("idle_interval", self.idle_interval)];
        match intervals.into_iter().find(|&(_, value)| value > MAX_INTERVAL) {
            Some((name, value)) => Err(IntervalError { name, value }),
            None => Ok(()),
        }
    }
}
