//! Outcomes that an agent has to report to its broker: all of them, in order, and each once.

use super::{Agent, AgentError};
use crate::extents::Extent;
use crate::page_range::PageRange;
use crate::protocol::{Broker, Outcome, ReportError};

impl Agent {
    /// Reports outcomes to the broker, after all that are still unreported.
    ///
    /// What it refuses for good, as only a broker does whose index contradicts its own answers, is
    /// undone and not reported again, so that the VM is folded on.
    ///
    /// # Errors
    ///
    /// When the broker fails. What it did not take is reported before any other request is made: the
    /// memory is what the outcomes state, whether the broker has received them or not.
    pub(super) fn report(
        &mut self,
        broker: &mut dyn Broker,
        mut outcomes: Vec<Outcome>,
    ) -> Result<(), AgentError> {
        if self.unreported.is_empty() {
            self.unreported = outcomes;
        } else {
            self.unreported.append(&mut outcomes);
        }
        while !self.unreported.is_empty() {
            let Err(ReportError { done, source }) = broker.report(self.vm, &self.unreported) else {
                self.unreported = Vec::new();
                break;
            };
            let done = done.min(self.unreported.len());
            self.unreported.drain(..done);
            if !source.is_refusal() {
                return Err(source.into());
            }
            if self.unreported.is_empty() {
                break;
            }
            let refused = self.unreported.remove(0);
            log::error!("VM {}: the broker refuses {refused:?}: {source}", self.vm);
            self.events.errors += 1;
            self.undo(refused);
        }
        Ok(())
    }

    /// Has memory be as if an outcome that the broker refused had never come about.
    fn undo(&mut self, refused: Outcome) {
        // All other outcomes report that memory is the VM's own, which is right whether it is known or not.
        let Outcome::Merged(Extent { linear, page_count, .. }) = refused else { return };
        let pages = linear.run(page_count);
        let mut outcomes = std::mem::take(&mut self.unreported);
        for page in pages.clone().pages() {
            if self.shared.contains(page) {
                self.unshare(page, &mut outcomes);
            }
        }
        // Nor may the mapping stay: the broker does not count it, and might use the slot for other bytes.
        for part in Self::parts_to_move(&pages) {
            if self.is_any_shared(&part) || !self.make_anonymous(&part).unwrap_or(false) {
                self.stale.search_all();
                continue;
            }
            outcomes.push(Outcome::unbacked(&part));
        }
        self.unreported = outcomes;
    }

    /// Reports what is still unreported: without it, the broker would decide about offers, and give directives,
    /// by a state that is out of date.
    ///
    /// # Errors
    ///
    /// When the broker fails, as for [`report`](Self::report).
    pub(crate) fn flush_outbox(&mut self, broker: &mut dyn Broker) -> Result<(), AgentError> {
        self.report(broker, Vec::new())
    }
}
