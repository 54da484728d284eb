//! What an agent has to tell its broker, which must hear all of it, in order, and each thing once.

use super::{Agent, AgentError};
use crate::protocol::{Broker, Outcome, ReportError};

impl Agent {
    /// Tells the broker what became of pages, after all that it has not heard yet.
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
        if self.unreported.is_empty() {
            return Ok(());
        }
        let result = broker.report(self.vm, &self.unreported);
        match result {
            Ok(()) => {
                self.unreported = Vec::new();
                Ok(())
            }
            Err(ReportError { done, source }) => {
                self.unreported.drain(..done);
                Err(source.into())
            }
        }
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
