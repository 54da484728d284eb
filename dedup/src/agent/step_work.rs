//! What a step has handled, counted so that every step has a bound: others wait for its end.

use std::time::{Duration, Instant};

/// What a step may cost: about 3 ms, in what reading a page costs (0.25 µs).
const STEP_COST: u64 = 3 << 12;

/// A step that has less than this left ends: pieces of work should not become too small.
const LEAST_COST: u64 = STEP_COST / 4;

/// What a piece of work may cost that could as well be two: a step whose time is over ends after the one
/// that it is at.
const PIECE_COST: u64 = STEP_COST / 4;

/// What a piece may cost of which runs are made: in smaller ones they would be cut.
const RUNS_COST: u64 = STEP_COST / 2;

/// Pages that are read at once, by all threads. What has been read is not to be old when it is offered.
const READ_PAGES: u32 = 2048;
const READ_IN_PASS_PAGES: u32 = 4096;

/// How much more is done at once in a whole pass, for whose parts nobody waits: threads share larger parts better.
const PASS_FACTOR: u64 = 8;

/// What it costs to look up how much the process has locked.
const LOCKS_COST: u64 = 64;

/// What visiting a VM costs that has nothing to do, or a domain.
const VISITED_COST: u64 = 64;

/// What a page costs that a broker gives a directive about, whether that can be done or not.
const DIRECTED_COST: u64 = 4;

/// What a page costs that takes a run of its own: it is protected, compared and mapped.
const RUN_COST: u64 = 24;

/// What each page of a run costs beyond that.
const MAPPED_COST: u64 = 10;

/// What a page costs that is offered: it is looked for in the trees, and becomes an item.
const OFFERED_COST: u64 = 2;

/// What a page costs whose bytes become a slot's.
const FILLED_COST: u64 = 12;

/// What a page costs of which the broker is notified that it has left, and whose slot may be given back.
const NOTED_COST: u64 = 16;

/// Runs of pages that were deferred and are gone through, for what reading a page costs.
const TRIED_PER_READ: u64 = 4;

/// Items that are gone through to be given up, for what reading a page costs.
const TRIMMED_PER_READ: u64 = 8;

/// Pages that the page map is searched for, and words of sets, for what reading a page costs.
const SEARCHED_PER_READ: u64 = 16;
const WORDS_PER_READ: u64 = 128;

/// What a step handled: what bounds it, and how much of it there was. How long that takes depends on the
/// machine, and on what else it does, so a step also ends when its [time](crate::EngineConfig::step_time) is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepWork {
    /// Visits of VMs that were begun, and of domains in which a pass was begun, went on to its polls, or ended.
    pub visits: u64,
    /// How often the process's count of locked memory was looked up: once if anything was to be mapped.
    pub lock_lookups: u64,
    /// Pages that brokers gave directives about, and one for each time that they were polled.
    pub directed_pages: u64,
    /// Pages that were read and fingerprinted.
    pub read_pages: u64,
    /// Pages that were offered to a broker.
    pub offered_pages: u64,
    /// Runs of pages that were write-protected, compared, and mapped or given back, or made private.
    pub mapped_runs: u64,
    /// Their pages.
    pub mapped_pages: u64,
    /// Mappings that the kernel went through to mark what was mapped as guest memory, or to see whether any is
    /// locked.
    pub registered_mappings: u64,
    /// Pages whose bytes were handed over for new slots.
    pub filled_pages: u64,
    /// Pages of which it was noted that they have changed.
    pub noted_pages: u64,
    /// Runs of pages that had been deferred for want of mappings and were gone through.
    pub tried_runs: u64,
    /// Items that were gone through to give up those that are not needed any more.
    pub trimmed_items: u64,
    /// Pages that the kernel's page map was searched for.
    pub searched_pages: u64,
    /// Words of sets of pages that were gone through.
    pub words: u64,
    bounds: Bounds,
}

/// What a step may do, while it is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bounds {
    /// When its time is over.
    until: Option<Instant>,
    /// Whether it is a part of a whole pass.
    is_in_pass: bool,
}

impl StepWork {
    /// A step that begins now and has so much time.
    pub(crate) fn within(time: Duration) -> Self {
        let until = Instant::now().checked_add(time);
        Self { bounds: Bounds { until, is_in_pass: false }, ..Self::default() }
    }

    /// A part of a whole pass, for the end of which nobody waits.
    pub(crate) fn in_pass() -> Self {
        Self { bounds: Bounds { until: None, is_in_pass: true }, ..Self::default() }
    }

    /// What it did, which is all that counts when it is over.
    pub(crate) fn done(&self) -> Self {
        Self { bounds: Bounds::default(), ..*self }
    }

    fn factor(&self) -> u64 {
        if self.bounds.is_in_pass { PASS_FACTOR } else { 1 }
    }

    /// What it cost, by what each part costs at most, in pages read.
    fn cost(&self) -> u64 {
        self.read_pages
            + self.visits * VISITED_COST
            + self.lock_lookups * LOCKS_COST
            + self.directed_pages * DIRECTED_COST
            + self.offered_pages * OFFERED_COST
            + self.mapped_runs * RUN_COST
            + self.mapped_pages * MAPPED_COST
            + self.registered_mappings
            + self.filled_pages * FILLED_COST
            + self.noted_pages * NOTED_COST
            + self.tried_runs / TRIED_PER_READ
            + self.trimmed_items / TRIMMED_PER_READ
            + self.searched_pages / SEARCHED_PER_READ
            + self.words / WORDS_PER_READ
    }

    fn left(&self) -> u64 {
        (STEP_COST * self.factor()).saturating_sub(self.cost())
    }

    /// What a piece of work may cost that is to be `cost` in a step.
    fn left_of(&self, cost: u64) -> u64 {
        self.left().min(cost * self.factor())
    }

    /// Whether the step is to end. However little time it has, it does one piece of its work.
    pub(crate) fn is_enough(&self) -> bool {
        let is_late = || self.bounds.until.is_some_and(|until| Instant::now() >= until);
        self.left() < LEAST_COST * self.factor() || (self.cost() > 0 && is_late())
    }

    /// How many pages are to be read at once.
    pub(super) fn room_to_read(&self) -> u32 {
        if self.bounds.is_in_pass { READ_IN_PASS_PAGES } else { READ_PAGES }
    }

    /// How many pages can still be mapped that take a run each: at least one.
    pub(super) fn room_to_map(&self) -> u32 {
        room(self.left_of(RUNS_COST), RUN_COST + MAPPED_COST)
    }

    /// How many pages can still be mapped, each of which takes a run and fills its slot: at least one.
    pub(super) fn room_to_fill(&self) -> u32 {
        room(self.left_of(RUNS_COST), RUN_COST + MAPPED_COST + FILLED_COST)
    }

    /// How many pages of a run can still be copied: at least one.
    pub(super) fn room_to_copy(&self) -> u32 {
        room(self.left_of(PIECE_COST), MAPPED_COST)
    }

    /// How many changed pages can still be noted: at least one.
    pub(super) fn room_to_note(&self) -> u32 {
        room(self.left_of(PIECE_COST), NOTED_COST)
    }

    /// How many pages the page map can still be searched for: at least one.
    pub(super) fn room_to_search(&self) -> u32 {
        room(self.left_of(PIECE_COST) * SEARCHED_PER_READ, 1)
    }
}

fn room(left: u64, cost: u64) -> u32 {
    u32::try_from(left / cost).unwrap_or(u32::MAX).max(1)
}
