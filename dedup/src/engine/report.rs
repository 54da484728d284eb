//! What a pass came to.

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
    /// That of a pass that was not made.
    pub(super) fn nothing() -> Self {
        Self { folded_pages: 0, scanned_pages: 0, backlog_pages: 0, errors: Vec::new() }
    }

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
