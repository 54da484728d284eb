//! What an agent has to tell its broker, which must hear all of it, in order, and each thing once.

use super::changes::linear_index;
use super::{Agent, AgentError};
use crate::extents::Extent;
use crate::protocol::{Broker, Outcome, ReportError};

impl Agent {
    /// Tells the broker what became of pages, after all that it has not heard yet.
    ///
    /// What it refuses for good, as only a broker does that knows something else than it told before, is
    /// undone and not said again, so that the VM is folded on.
    ///
    /// # Errors
    ///
    /// When the broker fails. What it did not take is told before anything else is asked of it: the
    /// memory is what the outcomes say, whether the broker knows it or not.
    pub(super) fn say(
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
        // Everything else says that memory is the VM's own, which is right whoever knows it.
        let Outcome::Merged(Extent { linear, count_pages, .. }) = refused else { return };
        let pages = linear.0 as usize..linear.offset(count_pages).0 as usize;
        let mut outcomes = std::mem::take(&mut self.unreported);
        for page in pages {
            if self.shared.contains(page) {
                self.unshare(linear_index(page), &mut outcomes);
            }
        }
        self.unreported = outcomes;
    }

    /// Tells the broker what it has not heard yet: it would take an offer, or give a directive, by
    /// what it knows.
    ///
    /// # Errors
    ///
    /// When the broker fails, as for [`say`](Self::say).
    pub(crate) fn catch_up(&mut self, broker: &mut dyn Broker) -> Result<(), AgentError> {
        self.say(broker, Vec::new())
    }
}
