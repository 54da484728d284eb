//! A pass, step by step: whoever drives an engine can rest, or see to other things, in between.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::trim::TRIMMED_PAGES;
use super::{Domain, Engine, Member, PassReport};
use crate::agent::{Agent, AgentError, ScanRules, StepWork};
use crate::knobs::Run;
use crate::page_range::PageRange;
use crate::protocol::{Batch, Broker};
use crate::stats::Events;
use crate::sys::note_locked_bytes;
use crate::{LinearIndex, VmId};

/// Pages that are given their own memory in a step, at most: each is copied, and others wait.
pub(super) const UNMERGE_PAGES: u32 = 2048;

/// What a step of an engine came to.
#[derive(Debug)]
pub enum Step {
    /// The pass goes on at once: a part of `pages_to_scan` pages have been looked at, and whoever waits
    /// for the engine need not wait for the others.
    Part,
    /// The pass goes on. `pages_to_scan` pages have been looked at: time to rest.
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
    before: Events,
    began: Instant,
    /// Whether `run` was 0 meanwhile, so that its time says nothing.
    was_stopped: bool,
    /// Whether it has been for folding all the time.
    is_scan: bool,
    cpu_before: Duration,
    errors: Vec<(VmId, AgentError)>,
    /// Pages that are still to be looked at before it is time to rest, if any have been.
    left: Option<u32>,
    /// Domains in which pages may be left alone with their slots, for whose mappings others wait.
    unsearched_domains: u64,
}

#[derive(Debug)]
enum Phase {
    /// VMs whose pages are still to be looked at. The first one's may have been in part.
    Visit { vms: VecDeque<VmId>, begun: bool },
    /// VMs that are still to do what the brokers want, and whether any had something to do since the
    /// first was asked.
    Poll { vms: VecDeque<VmId>, busy: bool },
    /// VMs of which all, or some ranges, are not folded any more, and of whose pages less may be remembered,
    /// from a page of the first on.
    Trim { vms: VecDeque<VmId>, next: LinearIndex },
}

impl Engine {
    /// Makes the next part of a pass: a step is bounded by [what it does](Self::last_step) and by
    /// [its time](super::EngineConfig::step_time), and after as many of them as it takes to look at
    /// `pages_to_scan` pages one says that it is time to rest. A pass visits every VM once, then carries out
    /// what the brokers want of the others' pages. VMs may come and go between steps, and knobs be changed.
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
        self.budget.follow_kernel();
        note_locked_bytes();
        let period = self.knobs.stable_node_chains_prune_millisecs;
        let is_join_due = self.dups_joined_at.elapsed() >= Duration::from_millis(period.into());
        if is_join_due {
            self.dups_joined_at = Instant::now();
        }
        self.resume_recoveries();
        let is_short = self.budget.is_short();
        let mut unsearched_domains = 0;
        for domain in self.domains.values_mut() {
            domain.broker.resume_moves();
            if is_join_due {
                domain.broker.join_dups();
            }
            if is_short && domain.broker.unshare_left_alone() == Batch::More {
                unsearched_domains += 1;
            }
        }
        Cycle {
            phase: Phase::Visit { vms: self.members.keys().copied().collect(), begun: false },
            before: self.events(),
            began: Instant::now(),
            was_stopped: false,
            is_scan: true,
            cpu_before: self.workers.cpu_time(),
            errors: Vec::new(),
            left: None,
            unsearched_domains,
        }
    }

    fn end_cycle(&mut self, mut cycle: Cycle) -> PassReport {
        for (vm, error) in &cycle.errors {
            log::warn!("VM {vm}: pass ended early: {error}");
        }
        cycle.errors.append(&mut self.unwanted.take_errors());
        for domain in self.domains.values_mut() {
            domain.broker.punch_empty_slots();
            domain.broker.forget_contested();
        }
        if cycle.is_scan && !self.members.is_empty() {
            self.full_scans += 1;
            // Whoever was asked at the beginning has had a whole pass to move.
            for domain in self.domains.values_mut() {
                domain.broker.give_up_moves();
                domain.broker.decay_breaks();
            }
            let cpu = self.workers.cpu_time().saturating_sub(cycle.cpu_before);
            if !cycle.was_stopped {
                self.advisor.advise(&mut self.knobs, cycle.began.elapsed(), cpu);
            }
        }
        let backlog: u64 =
            self.members.values_mut().map(|member| member.agent.take_backlog()).sum();
        let backlog = backlog + cycle.unsearched_domains;
        PassReport::new(&cycle.before, &self.events(), backlog, cycle.errors)
    }
}

/// What a step works on, and how.
struct Work<'a> {
    members: &'a mut BTreeMap<VmId, Member>,
    domains: &'a mut BTreeMap<String, Domain>,
    rules: ScanRules,
    unmerge_all: bool,
    /// What the step has done so far.
    step: StepWork,
}

impl Work<'_> {
    /// VMs of which all, or some ranges, are not folded any more.
    fn unfolded(&self) -> VecDeque<VmId> {
        let is_unfolded = |member: &Member| self.unmerge_all || member.agent.has_unfolded();
        let unfolded = self.members.iter().filter(|(_, member)| is_unfolded(member));
        unfolded.map(|(&vm, _)| vm).collect()
    }

    /// Gives up what is remembered of the next of a VM's pages that are in no tree and are not to be folded,
    /// from page `from` on; says where to go on, or `None` if that was all.
    fn trim(&mut self, vm: VmId, from: LinearIndex) -> Option<LinearIndex> {
        let member = self.members.get(&vm)?;
        let domain = self.domains.get_mut(&member.domain)?;
        let all = member.agent.range();
        let pages = (from..all.end).first(TRIMMED_PAGES);
        let next = pages.end;
        let unfolded = if self.unmerge_all { vec![pages] } else { member.agent.unfolded(pages) };
        for pages in unfolded {
            domain.trim(vm, pages, &mut self.step);
        }
        (next < all.end).then_some(next)
    }

    /// Has a VM's agent do something with its broker; `None` when the VM has gone.
    fn with<T>(
        &mut self,
        vm: VmId,
        task: impl FnOnce(&mut Agent, &mut dyn Broker) -> Result<T, AgentError>,
    ) -> Option<Result<T, AgentError>> {
        let member = self.members.get_mut(&vm)?;
        let domain = self.domains.get_mut(&member.domain)?;
        Some(member.agent.count_in(&mut self.step, |agent| task(agent, &mut *domain.broker)))
    }
}

impl Cycle {
    /// Looks at `limit` pages at most before it is time to rest, and does no more than a step may; says
    /// whether the pass is over.
    fn advance(&mut self, work: &mut Work<'_>, limit: u32) -> bool {
        let mut left = self.left.take().map_or(limit, |left| left.min(limit));
        while left > 0 {
            if work.step.is_enough() {
                self.left = Some(left);
                return false;
            }
            let done = match &mut self.phase {
                Phase::Visit { vms, begun } => {
                    let Some(&vm) = vms.front() else {
                        let vms = work.members.keys().copied().collect();
                        self.phase = Phase::Poll { vms, busy: false };
                        continue;
                    };
                    let first = !std::mem::replace(begun, true);
                    work.step.visited_vms += u64::from(first);
                    let looked = visit(work, vm, left, first);
                    if !matches!(looked, Some(Ok(Some(_)))) {
                        vms.pop_front();
                        *begun = false;
                    }
                    looked.map(|looked| (vm, looked.map(|pages| pages.unwrap_or(0))))
                }
                // What was about to be merged is about to be unmerged.
                Phase::Poll { .. } if work.unmerge_all => {
                    self.phase = Phase::Trim { vms: work.unfolded(), next: LinearIndex(0) };
                    continue;
                }
                Phase::Trim { vms, next } => {
                    let Some(&vm) = vms.front() else { return true };
                    let end = work.trim(vm, *next);
                    if end.is_none() {
                        vms.pop_front();
                    }
                    *next = end.unwrap_or(LinearIndex(0));
                    continue;
                }
                Phase::Poll { vms, busy } => {
                    let Some(&vm) = vms.front() else {
                        // What one VM does can free or bind another's page.
                        if !*busy {
                            self.phase = Phase::Trim { vms: work.unfolded(), next: LinearIndex(0) };
                            continue;
                        }
                        *vms = work.members.keys().copied().collect();
                        *busy = false;
                        continue;
                    };
                    // All of one VM's batches before the next VM's: slots are given out in the
                    // order of the first VM's pages.
                    let polled = work.with(vm, |agent, broker| agent.poll(broker, left));
                    if matches!(polled, Some(Ok(pages)) if pages > 0) {
                        *busy = true;
                    } else {
                        vms.pop_front();
                    }
                    polled.map(|polled| (vm, polled))
                }
            };
            match done {
                Some((_, Ok(pages))) => left = left.saturating_sub(pages),
                Some((vm, Err(error))) => self.errors.push((vm, error)),
                None => {}
            }
        }
        false
    }
}

/// Does the next part of a VM's visit, `limit` pages at most; says how many it was, or `None` when
/// the visit is over.
fn visit(
    work: &mut Work<'_>,
    vm: VmId,
    limit: u32,
    first: bool,
) -> Option<Result<Option<u32>, AgentError>> {
    let (rules, unmerge_all) = (work.rules, work.unmerge_all);
    work.with(vm, |agent, broker| {
        let mut begun = Ok(());
        if first {
            begun = agent.begin_pass(broker);
        }
        match begun.and_then(|()| agent.take_in(broker)) {
            // What is to be unmerged is known without it.
            Err(AgentError::Changes(error)) if unmerge_all => {
                log::warn!("VM {vm}: cannot find out which pages changed: {error}");
                agent.leave_changes();
            }
            taken => {
                if let Some(taken) = taken? {
                    return Ok(Some(taken));
                }
            }
        }
        if unmerge_all {
            let unmerged = agent.unmerge(broker, limit.min(UNMERGE_PAGES), true)?;
            return Ok(Some(unmerged).filter(|&unmerged| unmerged > 0));
        }
        agent.look(broker, limit, rules)
    })
}
