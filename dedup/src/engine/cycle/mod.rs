//! A pass, step by step: the caller of an engine can pause, or do other work, in between.
//!
//! | file | what it is |
//! |---|---|
//! | `phases` | the phases of a pass, and what the next step does in each |
//! | `work` | the agents and brokers that a step works on |

mod phases;
mod work;

use std::time::{Duration, Instant};

use super::{Domain, Engine, PassReport};
use crate::VmId;
use crate::agent::{AgentError, ScanRules, StepWork};
use crate::knobs::Run;
use crate::stats::Events;
use crate::sys::note_locked_bytes;
use phases::{EachDomain, Phase};
use work::Work;

/// Pages that are given their own memory in a step, at most: each is copied, and others wait.
pub(super) const UNMERGE_PAGES: u32 = 2048;

/// What a step of an engine came to.
#[derive(Debug)]
pub enum Step {
    /// The pass goes on at once: a part of `pages_to_scan` pages have been looked at, and other
    /// requests to the engine can be made before the next.
    Part,
    /// The pass goes on. `pages_to_scan` pages have been looked at: time to sleep.
    More,
    /// It was the last of its pass.
    Done(PassReport),
    /// `run` is 0, what had been written by then has been taken note of, and no page is folded that
    /// must not be, but for [those](crate::Engine::is_unmerging) for which there was no memory.
    Stopped,
}

/// A pass that is under way.
#[derive(Debug)]
pub(super) struct Cycle {
    phase: Phase,
    duties: Duties,
    before: Events,
    began: Instant,
    /// Whether `run` was 0 meanwhile, so that its time is no measure.
    was_stopped: bool,
    /// Whether it has been for folding all the time.
    is_scan: bool,
    cpu_before: Duration,
    errors: Vec<(VmId, AgentError)>,
    /// Pages that are still to be looked at before it is time to sleep, if any have been.
    left: Option<u32>,
    /// Domains in which pages may be left alone with their slots, for whose mappings others wait.
    unsearched_domains: u64,
}

/// What brokers do at the beginning of a pass, beside what they always do.
#[derive(Debug, Clone, Copy)]
struct Duties {
    /// Join dups that have become small.
    join_dups: bool,
    /// Search for pages that are left alone with their slots, as mappings are short.
    unshare_left_alone: bool,
}

impl Engine {
    /// Makes the next part of a pass: a step is bounded by [what it does](Self::last_step) and by
    /// [its time](super::EngineConfig::step_time), and after as many of them as it takes to look at
    /// `pages_to_scan` pages one is [`Step::More`]. A pass visits every VM once, then carries out the
    /// brokers' directives. VMs may come and go between steps, and knobs be changed.
    pub fn step(&mut self) -> Step {
        self.step_by(self.knobs.pages_to_scan, StepWork::within(self.step_time))
    }

    /// Makes a whole pass, or what is left of the one that is under way. While `run` is 0, nothing is
    /// folded: pages that must not be are given their own memory, those that were written leave
    /// their slots, and that is all. Its parts are larger than [steps](Self::step), as nobody can use the engine
    /// between them: threads share more of the work.
    pub fn pass(&mut self) -> PassReport {
        self.unwanted.retry();
        self.retry_leaves();
        loop {
            match self.step_by(u32::MAX, StepWork::in_pass()) {
                Step::Part | Step::More => {}
                Step::Done(report) => return report,
                Step::Stopped => return PassReport::nothing(),
            }
        }
    }

    /// Whether a pass has begun and is not over.
    pub fn is_in_pass(&self) -> bool {
        self.cycle.is_some()
    }

    /// What the last step, or the last one of a [`pass`](Self::pass), did.
    pub fn last_step(&self) -> StepWork {
        self.last_step.done()
    }

    fn step_by(&mut self, limit: u32, step: StepWork) -> Step {
        self.last_step = step;
        if self.leave_step() {
            return Step::More;
        }
        // Neither waits for its turn in a pass, nor is as slow as `pages_to_scan`.
        if self.knobs.run != Run::Unmerge && self.unmerge_unwanted() {
            return Step::More;
        }
        if self.knobs.run == Run::Stop {
            self.cycle.iter_mut().for_each(|cycle| cycle.was_stopped = true);
            return self.collect_by(limit);
        }
        self.round = None;
        let mut cycle = match self.cycle.take() {
            Some(cycle) => cycle,
            None => self.begin_cycle(),
        };
        let rules = ScanRules {
            smart_scan: self.knobs.smart_scan,
            use_zero_pages: self.knobs.use_zero_pages,
        };
        let unmerge_all = self.knobs.run == Run::Unmerge;
        cycle.is_scan &= !unmerge_all;
        let limit = if unmerge_all { limit.min(UNMERGE_PAGES) } else { limit };
        let Self { members, domains, workers, last_step, .. } = self;
        let mut work = Work { members, domains, rules, unmerge_all, step: *last_step };
        let is_over = workers.count(|| cycle.advance(&mut work, limit));
        *last_step = work.step;
        if is_over {
            return Step::Done(self.end_cycle(cycle));
        }
        let is_part = cycle.left.is_some();
        self.cycle = Some(cycle);
        if is_part { Step::Part } else { Step::More }
    }

    fn begin_cycle(&mut self) -> Cycle {
        // Whatever was to be merged by the last pass was, or has been declined.
        self.budget.redeem_all();
        self.budget.begin_pass();
        self.budget.reread_limit();
        note_locked_bytes();
        let period = self.knobs.stable_node_chains_prune_millisecs;
        let is_join_due = self.dups_joined_at.elapsed() >= Duration::from_millis(period.into());
        if is_join_due {
            self.dups_joined_at = Instant::now();
        }
        self.resume_recoveries();
        let duties = Duties { join_dups: is_join_due, unshare_left_alone: self.budget.is_short() };
        Cycle {
            phase: Phase::Begin { domains: EachDomain::default() },
            duties,
            before: self.events(),
            began: Instant::now(),
            was_stopped: false,
            is_scan: true,
            cpu_before: self.workers.cpu_time(),
            errors: Vec::new(),
            left: None,
            unsearched_domains: 0,
        }
    }

    fn end_cycle(&mut self, mut cycle: Cycle) -> PassReport {
        for (vm, error) in &cycle.errors {
            log::warn!("VM {vm}: pass ended early: {error}");
        }
        cycle.errors.append(&mut self.unwanted.take_errors());
        if cycle.is_scan && !self.members.is_empty() {
            self.full_scans += 1;
            let cpu = self.workers.cpu_time().saturating_sub(cycle.cpu_before);
            if !cycle.was_stopped {
                self.advisor.advise(&mut self.knobs, cycle.began.elapsed(), cpu);
            }
        }
        if self.members.values().any(|member| member.agent.is_held_back()) {
            self.members.values_mut().for_each(|member| member.agent.note_due_reclaim());
        }
        let backlog: u64 =
            self.members.values_mut().map(|member| member.agent.take_backlog()).sum();
        let awaits_retries = |domain: &&Domain| domain.broker.awaits_retries();
        let awaiting = self.domains.values().filter(awaits_retries).count() as u64;
        let backlog = backlog + cycle.unsearched_domains + awaiting;
        PassReport::new(&cycle.before, &self.events(), backlog, cycle.errors)
    }
}
