//! What an engine does while `run` is 0: it finds out which pages were written, so that they leave
//! their slots, and folds nothing.

use std::collections::VecDeque;

use super::cycle::Step;
use super::{Engine, Member};
use crate::VmId;
use crate::agent::AgentError;
use crate::broker::LocalBroker;

/// A visit of every VM that is under way.
#[derive(Debug)]
pub(super) struct Round {
    vms: VecDeque<VmId>,
    /// Whether the first of them has been asked what was written.
    begun: bool,
}

impl Engine {
    /// Takes note of what was written, about `limit` pages' worth of looking at most.
    pub(super) fn collect_by(&mut self, limit: u32) -> Step {
        let mut round = match self.round.take() {
            Some(round) => round,
            None => Round { vms: self.members.keys().copied().collect(), begun: false },
        };
        let Self { members, domains, workers, .. } = self;
        let is_over = workers.run(|| {
            let mut left = limit;
            while left > 0 {
                let Some(&vm) = round.vms.front() else { return true };
                let found = members.get_mut(&vm).and_then(|member| {
                    let broker = &mut domains.get_mut(&member.domain)?.broker;
                    Some(collect(member, broker, !std::mem::replace(&mut round.begun, true)))
                });
                match found {
                    Some(Ok(Some(pages))) => left = left.saturating_sub(pages),
                    gone_or_over => {
                        if let Some(Err(error)) = gone_or_over {
                            log::warn!("VM {vm}: {error}");
                        }
                        round.vms.pop_front();
                        round.begun = false;
                    }
                }
            }
            false
        });
        if is_over {
            return Step::Stopped;
        }
        self.round = Some(round);
        Step::More
    }
}

/// Takes note of the next part of what was written to a VM; `None` when that was all.
fn collect(
    member: &mut Member,
    broker: &mut LocalBroker,
    is_first: bool,
) -> Result<Option<u32>, AgentError> {
    if is_first {
        member.agent.begin_collecting(broker)?;
    }
    member.agent.take_in(broker)
}
