//! The folding thread: passes step by step, and requests between the steps.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{
    AttachError, AttachSpec, CompactReport, CompactScope, Compaction, Engine, EngineError,
    KnobError, Knobs, Leave, LinearIndex, MemoryCount, PagesError, PassReport, Run, SettleReport,
    Settling, Step, UnfoldedVm, VmId,
};

use crate::config::DedupConfig;
use crate::config::DedupMode;

/// Passes in a row that fold nothing after which passes become rare: what changed during the first
/// has been looked at by the second.
const IDLE_PASSES: u32 = 2;

/// Requests that are answered before a step that is due: more than can be in the inbox unless
/// somebody floods it, which must not keep folding from going on.
const MAX_REQUESTS: u32 = 256;

/// The least time after which what the kernel refused to a VM that has ended is tried again.
const MIN_RETRY: Duration = Duration::from_millis(100);

/// Something that the folding thread is to do between two steps. Whoever asked may have gone when
/// it is answered.
pub(super) type Request = Box<dyn FnOnce(&mut Runner) + Send>;

/// How the waiting for folding to settle ends: with `Err` if it was commanded not to fold any more.
pub(super) type Settled = Result<SettleReport, Run>;

/// Somebody who waits for folding to settle.
struct Waiter {
    settling: Settling,
    /// Whether a pass has begun since they asked: what is left of one that had begun before shows
    /// nothing of the VMs it had visited by then.
    is_counting: bool,
    answer: Sender<Settled>,
}

/// What the next step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sleep {
    /// Nothing.
    Over,
    /// `sleep_millisecs`, within a pass.
    InPass,
    /// The interval between passes, or `sleep_millisecs` if that is longer.
    Between,
    /// For somebody to ask for something: there is nothing to do.
    Endless,
}

/// The engine and when it works.
pub(super) struct Runner {
    pub(super) engine: Engine,
    config: DedupConfig,
    inbox: Receiver<Request>,
    /// VMs that were never to be folded, of which the engine knows nothing.
    unfolded: BTreeMap<VmId, UnfoldedVm>,
    waiters: Vec<Waiter>,
    /// VMs that have ended, whose memory is being taken off its slots, and who waits for that.
    leavers: Vec<(Leave, Sender<()>)>,
    /// Compactions that were asked for, the first of which may be under way.
    compactions: VecDeque<(Compaction, Sender<CompactReport>)>,
    /// Passes in a row that folded nothing.
    idle: u32,
    /// Whether a pass has begun and is not over.
    in_pass: bool,
    sleep: Sleep,
    /// Since when it sleeps.
    since: Instant,
    /// How often something was done that statistics from before it do not show.
    pub(super) changes: u64,
}

impl Runner {
    pub(super) fn new(config: DedupConfig, inbox: Receiver<Request>) -> Result<Self, EngineError> {
        let engine = Engine::new(config.engine)?;
        let (sleep, since) = (Sleep::Between, Instant::now());
        Ok(Self {
            engine,
            config,
            inbox,
            unfolded: BTreeMap::new(),
            waiters: Vec::new(),
            leavers: Vec::new(),
            compactions: VecDeque::new(),
            idle: 0,
            in_pass: false,
            sleep,
            since,
            changes: 0,
        })
    }

    /// Works until nobody can ask for anything any more.
    pub(super) fn run(mut self) {
        while self.answer_until_due().is_some() {
            self.end_overdue_waits();
            // Before anything else: it gives memory back.
            if self.leave() {
                continue;
            }
            // A compaction takes turns with folding, so that neither waits for the other's end.
            let is_due = self.sleep_left().is_some_and(|left| left.is_zero());
            self.compact();
            if is_due {
                self.step();
            }
        }
    }

    /// Answers requests until it is time for the next step; `None` when nobody can ask any more.
    fn answer_until_due(&mut self) -> Option<()> {
        let mut answered_when_due = 0;
        loop {
            let request = match self.time_left() {
                None => self.inbox.recv().ok()?,
                Some(Duration::ZERO) if answered_when_due == MAX_REQUESTS => return Some(()),
                Some(left) => match self.inbox.recv_timeout(left) {
                    Ok(request) => {
                        answered_when_due += u32::from(left.is_zero());
                        request
                    }
                    Err(RecvTimeoutError::Timeout) => return Some(()),
                    Err(RecvTimeoutError::Disconnected) => return None,
                },
            };
            request(self);
        }
    }

    /// How long until there is something to do; `None` when that is not before there is a request.
    fn time_left(&self) -> Option<Duration> {
        if !self.compactions.is_empty() || self.engine.can_leave() {
            return Some(Duration::ZERO);
        }
        let left = self.sleep_left();
        // What the kernel refused is tried again, though there may be nothing else to do.
        if self.engine.is_anybody_leaving() {
            let retry = self.config.busy_interval.max(MIN_RETRY);
            return Some(left.map_or(retry, |left| left.min(retry)));
        }
        left
    }

    /// How long folding still sleeps; `None` when it does so until there is a request. What is asked
    /// for meanwhile can make it less.
    pub(super) fn sleep_left(&self) -> Option<Duration> {
        let knobs = self.engine.knobs();
        let in_a_hurry = knobs.run == Run::Unmerge || !self.waiters.is_empty();
        // What is switched off is given its own memory at the same pace, whatever the scan's is.
        let can_unmerge = knobs.run == Run::Unmerge || self.engine.can_unmerge();
        let knob = Duration::from_millis(knobs.sleep_millisecs.into());
        let length = match self.sleep {
            Sleep::Endless => return None,
            Sleep::Over => Duration::ZERO,
            Sleep::InPass if in_a_hurry || can_unmerge => Duration::ZERO,
            Sleep::InPass => knob,
            // No page counts as unchanged that was not left alone for as long.
            Sleep::Between if in_a_hurry => self.config.busy_interval,
            // For some of it there was no memory.
            Sleep::Between if self.engine.is_unmerging() => self.config.busy_interval,
            Sleep::Between if knobs.run == Run::Stop => self.config.idle_interval,
            Sleep::Between if self.idle < IDLE_PASSES => self.config.busy_interval.max(knob),
            Sleep::Between => self.config.idle_interval.max(knob),
        };
        // Whoever has no time left is answered after one more pass.
        let patience = self.waiters.iter().map(|waiter| waiter.settling.time_left()).min();
        let left = length.saturating_sub(self.since.elapsed());
        Some(patience.map_or(left, |patience| left.min(patience)))
    }

    fn step(&mut self) {
        match self.engine.step() {
            Step::Part => (self.in_pass, self.sleep) = (self.engine.is_in_pass(), Sleep::Over),
            Step::More => {
                (self.in_pass, self.sleep) = (self.engine.is_in_pass(), Sleep::InPass);
            }
            Step::Done(report) => {
                self.in_pass = false;
                self.sleep = self.sleep_after(&report);
                self.notify_waiters(&report);
            }
            // What is shared may be written, and then it does not count any more.
            Step::Stopped if self.engine.is_unmerged() => self.sleep = Sleep::Endless,
            Step::Stopped => self.sleep = Sleep::Between,
        }
        self.since = Instant::now();
    }

    /// Takes the next part of the memory of VMs that have ended off its slots, if there is any.
    fn leave(&mut self) -> bool {
        if !self.engine.can_leave() {
            return false;
        }
        self.engine.leave_step();
        let engine = &self.engine;
        // Nobody waits for a kernel that refuses.
        let is_over = |leave: Leave| !engine.is_leaving(leave) || engine.is_leave_put_off(leave);
        for (_, answer) in self.leavers.extract_if(.., |(leave, _)| is_over(*leave)) {
            let _ = answer.send(());
        }
        self.changes += 1;
        true
    }

    /// Does the next part of a compaction, if one is under way.
    fn compact(&mut self) {
        let Some((compaction, answer)) = self.compactions.front_mut() else { return };
        if let Some(report) = self.engine.compact_step(compaction) {
            self.changes += 1;
            let _ = answer.send(report);
            self.compactions.pop_front();
        }
    }

    fn sleep_after(&mut self, report: &PassReport) -> Sleep {
        self.idle = if report.folded_pages == 0 { self.idle.saturating_add(1) } else { 0 };
        if self.engine.knobs().run != Run::Unmerge || !report.errors.is_empty() {
            return Sleep::Between;
        }
        // VMs that the pass had visited before the command to unmerge have had none of it.
        match (self.engine.is_unmerged(), self.engine.owes_mappings()) {
            (false, _) => Sleep::Over,
            (true, true) => Sleep::Between,
            (true, false) => Sleep::Endless,
        }
    }

    /// Answers those whose time is over although the pass is not.
    fn end_overdue_waits(&mut self) {
        self.waiters.retain(|waiter| {
            let Some(report) = waiter.settling.overdue() else { return true };
            self.changes += 1;
            let _ = waiter.answer.send(Ok(report));
            false
        });
    }

    fn notify_waiters(&mut self, report: &PassReport) {
        self.waiters.retain_mut(|waiter| {
            if !std::mem::replace(&mut waiter.is_counting, true) {
                return true;
            }
            match waiter.settling.note(report) {
                Some(end) => {
                    self.changes += 1;
                    let _ = waiter.answer.send(Ok(end));
                    false
                }
                None => true,
            }
        });
    }

    /// What folding does and saves, if the memory of all VMs has been counted.
    pub(super) fn stats(&self, count: &mut MemoryCount) -> Option<DedupStats> {
        self.engine.stats_with(count, &self.unfolded)
    }

    /// The same, after counting what has not been counted yet. Others wait.
    pub(super) fn count_stats(&self, mut count: MemoryCount) -> DedupStats {
        loop {
            match self.stats(&mut count) {
                Some(stats) => return stats,
                None => count.run(),
            }
        }
    }

    /// Takes note of a VM that is not to be folded, so that its memory is not forgotten in the counts.
    pub(super) fn leave_unfolded(&mut self, vm: VmId, its: UnfoldedVm) {
        self.unfolded.insert(vm, its);
        self.changes += 1;
    }

    pub(super) fn attach(&mut self, vm: VmId, spec: AttachSpec) -> Result<(), AttachError> {
        let is_first = self.engine.vms().next().is_none();
        self.engine.attach(vm, spec)?;
        self.unfolded.remove(&vm);
        self.changes += 1;
        self.idle = 0;
        // Passes over nothing are no reason to sleep before the first over something.
        if is_first || self.sleep == Sleep::Endless {
            self.sleep = Sleep::Over;
        }
        Ok(())
    }

    /// Makes passes frequent again: guests are about to have something to fold.
    pub(super) fn wake(&mut self) {
        self.idle = 0;
    }

    /// Answers when the memory of a VM lies over no slot any more, or the kernel refuses that.
    pub(super) fn detach_and_discard(&mut self, vm: VmId, answer: Sender<()>) {
        self.unfolded.remove(&vm);
        match self.engine.begin_detach_and_discard(vm) {
            Some(leave) => self.leavers.push((leave, answer)),
            None => drop(answer.send(())),
        }
        self.changes += 1;
    }

    /// Answers when folding has settled, or at once if it never would.
    pub(super) fn settle(&mut self, limit: Duration, answer: Sender<Settled>) {
        let run = self.engine.knobs().run;
        if run != Run::Fold {
            let _ = answer.send(Err(run));
            return;
        }
        self.engine.mark();
        let (settling, is_counting) = (Settling::new(limit), !self.in_pass);
        self.waiters.push(Waiter { settling, is_counting, answer });
    }

    /// Answers when the stores have been compacted.
    pub(super) fn begin_compaction(&mut self, scope: CompactScope, answer: Sender<CompactReport>) {
        self.compactions.push_back((self.engine.begin_compaction(scope), answer));
    }

    /// Sets all of the knobs, which are names and values, or none.
    pub(super) fn set_knobs(&mut self, changes: &[(String, String)]) -> Result<Knobs, KnobError> {
        let mut knobs = self.engine.knobs();
        knobs.set_all(changes.iter().map(|(key, value)| (&**key, &**value)))?;
        let set = self.apply_knobs(knobs)?;
        // Named, it is meant, also where it is what the advisor had just come to.
        let is_named = changes.iter().any(|(key, _)| key == "pages_to_scan");
        if is_named && set.pages_to_scan != knobs.pages_to_scan {
            return self.apply_knobs(knobs);
        }
        Ok(set)
    }

    /// Has all of the knobs be what they are to be, or none.
    pub(super) fn apply_knobs(&mut self, knobs: Knobs) -> Result<Knobs, KnobError> {
        let before = self.engine.knobs();
        self.engine.set_knobs(knobs)?;
        // The end of the advisor changes one that was not named.
        let knobs = self.engine.knobs();
        self.changes += 1;
        if knobs.run != before.run {
            (self.idle, self.sleep) = (0, Sleep::Over);
        }
        if knobs.run != Run::Fold {
            for waiter in self.waiters.drain(..) {
                let _ = waiter.answer.send(Err(knobs.run));
            }
        }
        Ok(knobs)
    }

    pub(super) fn set_mode(&mut self, vm: VmId, mode: DedupMode) -> Result<(), PagesError> {
        self.engine.set_mode(vm, mode)?;
        self.changes += 1;
        (self.idle, self.sleep) = (0, Sleep::Over);
        Ok(())
    }

    /// Allows, or forbids, the folding of runs of a VM's pages: a first page and a number of pages
    /// each, all of which it has.
    pub(super) fn set_mergeable(
        &mut self,
        vm: VmId,
        runs: &[(LinearIndex, u32)],
        mergeable: bool,
    ) -> Result<(), PagesError> {
        self.changes += 1;
        for &(first, page_count) in runs {
            self.engine.set_mergeable(vm, first, page_count, mergeable)?;
        }
        (self.idle, self.sleep) = (0, Sleep::Over);
        Ok(())
    }
}
