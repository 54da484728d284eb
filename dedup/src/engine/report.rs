//! What a pass, or a series of them, came to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::VmId;
use crate::agent::AgentError;
use crate::stats::Events;

/// What one pass did.
#[derive(Debug)]
pub struct PassReport {
    /// Pages that were mapped onto slots, returned to them, or given back.
    pub folded_pages: u64,
    /// Pages that were read.
    pub scanned_pages: u64,
    /// Pages that there was something to do about, and that have not changed since the last
    /// [`Engine::mark`](crate::Engine::mark).
    pub backlog_pages: u64,
    /// VMs whose visit ended early, and why.
    pub errors: Vec<(VmId, AgentError)>,
}

impl PassReport {
    pub(super) fn new(
        before: &Events,
        after: &Events,
        backlog_pages: u64,
        errors: Vec<(VmId, AgentError)>,
    ) -> Self {
        let folded = |events: &Events| events.merges + events.remerges + events.zero_discards;
        Self {
            folded_pages: folded(after) - folded(before),
            scanned_pages: after.pages_scanned - before.pages_scanned,
            backlog_pages,
            errors,
        }
    }

    /// Whether the pass found nothing to do but for pages that keep changing.
    pub fn is_quiet(&self) -> bool {
        self.backlog_pages == 0 && self.errors.is_empty()
    }
}

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

impl SettleReport {
    /// A report of passes that took `elapsed`.
    pub fn new(settled: bool, passes: u64, elapsed: Duration) -> Self {
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        Self { settled, passes, elapsed_ms }
    }
}
