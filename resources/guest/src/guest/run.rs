//! The loop: a slice of work, a look at the control register, a sleep.

use pagefold_guest::pace::Pace;
use pagefold_guest::params::Params;
use pagefold_guest::pending::Pending;
use pagefold_guest::placement::PageKind;
use pagefold_guest::ports::{CONTROL_PORT, Control, EXIT_CORRUPT, EXIT_OK, SLEEP_PORT};
use pagefold_guest::report::Report;
use pagefold_guest::rng::Rng;

use super::clock::Clock;
use super::pages::Pages;
use super::serial::print;
use crate::sys::{read_u32, write_u32};

/// Pages that can wait for their write back: a second's worth at the highest preset rate, twice.
const PENDING_PAGES: usize = 4096;
/// A page is written back after so many milliseconds, and up to so many more.
const BACK_AFTER_MS: u32 = 300;
const BACK_SPREAD_MS: u32 = 700;
/// The shortest and the longest slice. A longer one costs fewer exits; a change of the control
/// register ends the sleep in it, so that nobody waits for its end.
const MIN_SLICE_US: u32 = 1_000;
const MAX_SLICE_US: u32 = 100_000;
/// The stream of random numbers that chooses pages; placement uses the VM's number as its stream.
const CHOICE_STREAM: u64 = 1 << 32;

/// The running workload.
pub(crate) struct Run {
    params: Params,
    pages: Pages,
    clock: Clock,
    choice: Rng,
    verify: Pace,
    write_new: Pace,
    write_back: Pace,
    pending: Pending<PENDING_PAGES>,
    next_to_verify: u32,
    next_beat: u64,
    is_resting: bool,
}

impl Run {
    /// A workload that starts now.
    pub(crate) fn new(params: Params, pages: Pages) -> Self {
        let clock = Clock::new(params.tsc_khz);
        let now = clock.now();
        let pace = |per_s| Pace::new(per_s, params.tsc_khz, now);
        Self {
            choice: Rng::new(params.seed, CHOICE_STREAM | u64::from(params.vm_number)),
            verify: pace(params.verify_per_s),
            write_new: pace(params.churn_new_per_s),
            write_back: pace(params.churn_back_per_s),
            pending: Pending::new(),
            next_to_verify: 0,
            next_beat: now + clock.ticks_in_ms(params.heartbeat_ms),
            is_resting: false,
            params,
            pages,
            clock,
        }
    }

    /// Works until the VMM commands it to finish; the exit code.
    pub(crate) fn until_finished(mut self) -> u32 {
        print(&Report::Ready { pages: self.pages.count() });
        let run_slice_us = self.slice_us();
        loop {
            let start = self.clock.now();
            let slice_us = match control() {
                Control::Run => {
                    self.churn(start);
                    run_slice_us
                }
                Control::Rest => {
                    self.rest();
                    MAX_SLICE_US
                }
                Control::Finish => return self.finish(),
            };
            for _ in 0..self.verify.due(start) {
                self.verify_next();
            }
            if start >= self.next_beat {
                print(&Report::Beat(self.pages.tally()));
                self.pages.allow_lines();
                self.next_beat = start + self.clock.ticks_in_ms(self.params.heartbeat_ms);
            }
            let spent = self.clock.now().saturating_sub(start);
            let slice = self.clock.ticks_in_us(slice_us);
            if spent < slice {
                write_u32(SLEEP_PORT, self.clock.us_in(slice - spent));
            }
        }
    }

    /// As long as about one page becomes due in it: writes should be spread out, sleeps long.
    fn slice_us(&self) -> u32 {
        // A page that is written back is written twice.
        let back_per_s = self.params.churn_back_per_s.saturating_mul(2);
        let writes_per_s = self.params.churn_new_per_s.saturating_add(back_per_s);
        (1_000_000 / writes_per_s.max(1)).clamp(MIN_SLICE_US, MAX_SLICE_US)
    }

    fn churn(&mut self, now: u64) {
        self.is_resting = false;
        while let Some(index) = self.pending.pop_due(now) {
            self.pages.rewrite(index);
        }
        for _ in 0..self.write_new.due(now) {
            if let Some(index) = self.choose(|kind| kind == PageKind::Own) {
                self.pages.rewrite(index);
            }
        }
        for _ in 0..self.write_back.due(now) {
            self.write_scratch(now);
        }
    }

    /// Gives a resting common or zero page scratch content, to be written back later.
    fn write_scratch(&mut self, now: u64) {
        if self.pending.is_full() {
            return;
        }
        let Some(index) = self.choose(|kind| kind != PageKind::Own) else {
            return;
        };
        if !self.pages.is_resting(index) {
            return;
        }
        let delay_ms = BACK_AFTER_MS + self.choice.below(BACK_SPREAD_MS);
        if self.pending.push(index, now + self.clock.ticks_in_ms(delay_ms)) {
            self.pages.rewrite(index);
        }
    }

    fn rest(&mut self) {
        self.write_back_all();
        if !self.is_resting {
            self.is_resting = true;
            print(&Report::Rest(self.pages.tally()));
        }
    }

    fn finish(&mut self) -> u32 {
        self.write_back_all();
        for index in 0..self.pages.count() {
            self.pages.verify(index);
        }
        let tally = self.pages.tally();
        print(&Report::Done(tally));
        if tally.corrupt == 0 { EXIT_OK } else { EXIT_CORRUPT }
    }

    fn write_back_all(&mut self) {
        while let Some(index) = self.pending.pop() {
            self.pages.rewrite(index);
        }
    }

    fn verify_next(&mut self) {
        self.pages.verify(self.next_to_verify);
        self.next_to_verify = (self.next_to_verify + 1) % self.pages.count();
    }

    /// A random page of a kind: by trial, then, where the kind is rare, the next one there is.
    fn choose(&mut self, is_wanted: impl Fn(PageKind) -> bool) -> Option<u32> {
        let count = self.pages.count();
        for _ in 0..32 {
            let index = self.choice.below(count);
            if is_wanted(self.pages.kind(index)) {
                return Some(index);
            }
        }
        let from = self.choice.below(count);
        (from..count).chain(0..from).find(|index| is_wanted(self.pages.kind(*index)))
    }
}

fn control() -> Control {
    let value = read_u32(CONTROL_PORT);
    match Control::from_register(value) {
        Some(control) => control,
        None => panic!("the control register reads {value:#x}"),
    }
}
