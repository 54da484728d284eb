//! What an engine does while `run` is 0: it finds out which pages were written, so that they leave
//! their slots, and folds nothing.

use std::collections::VecDeque;

use super::cycle::Step;
use super::{Engine, Member};
use crate::VmId;
use crate::agent::{AgentError, StepWork};
use crate::protocol::Broker;
use crate::sys::note_locked_bytes;

/// A visit of every VM that is under way.
#[derive(Debug)]
pub(super) struct Round {
    vms: VecDeque<VmId>,
    /// Whether the visit of the first of them has begun.
    begun: bool,
    /// Pages that are still to be looked at before it is time to sleep, if any have been.
    left: Option<u32>,
}

impl Engine {
    /// Takes note of what was written, about `limit` pages' worth of looking at most before it is time
    /// to sleep, and no more than a step may.
    pub(super) fn collect_by(&mut self, limit: u32) -> Step {
        let mut round = self.round.take().unwrap_or_else(|| {
            note_locked_bytes();
            Round { vms: self.members.keys().copied().collect(), begun: false, left: None }
        });
        let Self { members, domains, workers, last_step, .. } = self;
        let is_over = workers.count(|| {
            let mut left = round.left.take().map_or(limit, |left| left.min(limit));
            while left > 0 {
                if last_step.is_enough() {
                    round.left = Some(left);
                    return false;
                }
                let Some(&vm) = round.vms.front() else { return true };
                let found = members.get_mut(&vm).and_then(|member| {
                    let broker = &mut *domains.get_mut(&member.domain)?.broker;
                    let is_first = !std::mem::replace(&mut round.begun, true);
                    last_step.visits += u64::from(is_first);
                    Some(collect(member, broker, is_first, last_step))
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
            for domain in self.domains.values_mut() {
                domain.broker.punch_empty_slots();
            }
            return Step::Stopped;
        }
        let is_part = round.left.is_some();
        self.round = Some(round);
        if is_part { Step::Part } else { Step::More }
    }
}

/// Takes note of the next part of what was written to a VM; `None` when that was all.
fn collect(
    member: &mut Member,
    broker: &mut dyn Broker,
    is_first: bool,
    step: &mut StepWork,
) -> Result<Option<u32>, AgentError> {
    member.agent.count_in(step, |agent| {
        if is_first {
            agent.begin_collecting(broker)?;
        }
        agent.take_in(broker)
    })
}
