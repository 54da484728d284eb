//! The merge protocol: protect, compare, map, unprotect.
//!
//! From the moment a window is protected until it is unprotected, no message is sent and nothing waits
//! on anybody else, so that a writer sleeps for as long as it takes to handle a window and no
//! longer.

use std::io;
use std::ops::Range;

use super::runs::{Action, Run, declined, deferred, windows};
use crate::agent::Agent;
use crate::agent::attach::store::StoreAccess;
use crate::extents::Extent;
use crate::fingerprint::is_zero;
use crate::page_range::PageRange;
use crate::protocol::Outcome;
use crate::sys::{MapError, Protected, Span, Userfaultfd};
use crate::types::count;
use crate::{LinearIndex, PAGE_SIZE, Slot};

/// What became of a part of a run.
enum Step {
    /// It is mapped, or given back, as requested.
    Done(Run),
    /// It does not hold the slot's bytes, or zeroes, any more.
    Changed(Run),
    /// It is locked: a new mapping would not be.
    Locked(Run),
    /// The kernel refused.
    Refused(Run, io::Error),
}

impl Agent {
    /// Merges runs, in ascending order, and adds the outcome of each page to `outcomes`.
    pub(super) fn merge(&mut self, runs: &[Run], outcomes: &mut Vec<Outcome>) {
        for run in runs {
            self.split_huge_pages(run.range());
            self.work.mapped_runs += 1;
            self.work.mapped_pages += u64::from(run.page_count);
        }
        let may_be_locked = !runs.is_empty() && self.may_be_locked();
        let mut mapped = Vec::new();
        let mut is_refused = false;
        for window in windows(runs) {
            let mut window = window.to_vec();
            if is_refused {
                // Nothing else that needs a mapping is tried.
                for run in window.extract_if(.., |run| run.is_mapped()) {
                    self.offered.remove_range(run.range());
                    self.defer(&run, 0);
                    outcomes.extend(run.shares().map(deferred));
                }
            }
            // No mapping of guest memory was touched for it, and the other runs are merged all the same.
            for step in self.leave_out_unreadable(&mut window) {
                self.record(step, outcomes);
            }
            for step in self.merge_window(&window, may_be_locked) {
                if let Step::Refused(run, error) = &step
                    && run.is_mapped()
                    && error.raw_os_error() == Some(libc::ENOMEM)
                    && !std::mem::replace(&mut is_refused, true)
                {
                    self.budget.note_refusal();
                }
                match &step {
                    // A refused mapping may have parted the one that it was to replace.
                    Step::Done(run) | Step::Refused(run, _) if run.is_mapped() => {
                        mapped.push(run.range());
                    }
                    _ => {}
                }
                self.record(step, outcomes);
            }
        }
        self.register_runs(&mapped);
    }

    /// Leaves out the runs whose slots cannot be read, for want of address space.
    fn leave_out_unreadable(&self, window: &mut Vec<Run>) -> Vec<Step> {
        let refusal = |run: &Run| {
            let Extent { slot, page_count, .. } = run.extent()?;
            self.store.view.prepare(slot, page_count).err()
        };
        let mut refused = Vec::new();
        window.retain(|run| {
            let error = refusal(run);
            let is_readable = error.is_none();
            refused.extend(error.map(|error| Step::Refused(*run, error)));
            is_readable
        });
        refused
    }

    fn merge_window(&self, window: &[Run], may_be_locked: bool) -> Vec<Step> {
        let mut steps = Vec::with_capacity(window.len());
        let (Some(first), Some(last)) = (window.first(), window.last()) else { return steps };
        let page_count = last.end().0 - first.linear.0;
        let span = self.space.span(first.linear, page_count);
        if span.page_count() < page_count {
            // The window crosses from one region to the next: each side by itself.
            let (here, there) = split(window, first.linear.offset(span.page_count()));
            steps.extend(self.merge_window(&here, may_be_locked));
            steps.extend(self.merge_window(&there, may_be_locked));
            return steps;
        }
        let is_locked = |span: Span<'_>| may_be_locked && span.is_locked();
        merge_span(&self.process.uffd, &self.store, span, window, is_locked, &mut steps);
        steps
    }

    fn record(&mut self, step: Step, outcomes: &mut Vec<Outcome>) {
        // Of a run of which a part is locked, the rest can be merged once the part has been determined.
        let (is_refused, differs) =
            (matches!(step, Step::Refused(..)), matches!(step, Step::Changed(_)));
        let (run, is_done) = match step {
            Step::Done(run) => (run, true),
            Step::Changed(run) => {
                self.events.declines += run.extent().map_or(0, |run| u64::from(run.page_count));
                (run, false)
            }
            Step::Locked(run) => {
                self.look_for_locks_anew();
                (run, false)
            }
            Step::Refused(run, error) => {
                log::debug!("VM {}: cannot fold {} pages: {error}", self.vm, run.page_count);
                self.events.errors += 1;
                (run, false)
            }
        };
        let page_count = u64::from(run.page_count);
        self.offered.remove_range(run.range());
        if !is_refused {
            self.note_work(run.range());
        }
        if !is_done {
            // A page that shares a slot, and was to share another, stays where it is. If it was
            // written, its change source names it.
            let unshared = run.range().pages().filter(|&page| !self.shared.contains(page));
            unshared.for_each(|page| {
                self.dirty.insert(page);
            });
            outcomes.extend(run.shares().map(|(linear, slot)| {
                if differs && self.is_collision(linear, slot) {
                    Outcome::Differs { linear, slot }
                } else {
                    declined((linear, slot))
                }
            }));
            return;
        }
        self.dirty.remove_range(run.range());
        self.own_copies.forget(run.range());
        let moved = run.range().pages().filter(|&page| self.shared.contains(page)).count() as u64;
        if let Some(extent) = run.extent() {
            self.shared.insert_range(run.range());
            outcomes.push(Outcome::Merged(extent));
        } else {
            self.zero.insert_range(run.range());
        }
        match run.action {
            Action::Map(_) => {
                self.events.merges += page_count - moved;
                self.events.moves += moved;
            }
            Action::Return(_) => self.events.remerges += page_count,
            Action::Discard => self.events.zero_discards += page_count,
            Action::Replace => {
                self.events.zero_discards += page_count;
                let Run { linear, page_count, .. } = run;
                outcomes.push(Outcome::Unbacked { linear, page_count });
            }
        }
        self.place(&run);
    }

    /// Whether a page is found where a slot's bytes are and yet holds others, not just because it was
    /// written when it was to be merged.
    fn is_collision(&self, linear: LinearIndex, slot: Slot) -> bool {
        let (page, mut bytes) = (self.copy(linear), [0; PAGE_SIZE]);
        if self.store.memfd.read(slot, &mut bytes).is_err() || page == bytes {
            return false;
        }
        let fingerprint = |bytes| self.secret.fingerprint(bytes);
        let name = |bytes| self.secret.identity(bytes).key();
        fingerprint(&page) == fingerprint(&bytes) || name(&page) == name(&bytes)
    }
}

/// Splits runs at a page.
fn split(runs: &[Run], at: LinearIndex) -> (Vec<Run>, Vec<Run>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for run in runs {
        let count_before = at.0.saturating_sub(run.linear.0).min(run.page_count);
        if count_before > 0 {
            before.push(run.part(0, count_before));
        }
        if count_before < run.page_count {
            after.push(run.part(count_before, run.page_count - count_before));
        }
    }
    (before, after)
}

/// Merges the runs of `window`, which `span` covers from the first page to the last, but for what
/// `is_locked` when it is to be mapped or given back.
fn merge_span(
    uffd: &Userfaultfd,
    store: &StoreAccess,
    span: Span<'_>,
    window: &[Run],
    is_locked: impl Fn(Span<'_>) -> bool,
    steps: &mut Vec<Step>,
) {
    let mut protected = match Protected::new(uffd, span) {
        Ok(protected) => protected,
        Err(error) => {
            let code = error.raw_os_error().unwrap_or(libc::EIO);
            let refused = |run: &Run| Step::Refused(*run, io::Error::from_raw_os_error(code));
            steps.extend(window.iter().map(refused));
            return;
        }
    };
    let start = window[0].linear;
    for run in window {
        let first = run.linear.0 - start.0;
        let as_wanted: Vec<bool> = (0..run.page_count)
            .map(|page| holds(store, run.action, page, protected.page(first + page)))
            .collect();
        let mut page = 0;
        for alike in as_wanted.chunk_by(|one, other| one == other) {
            let part = run.part(page, count(alike.len()));
            if !alike[0] {
                steps.push(Step::Changed(part));
            } else if is_locked(span.part(first + page, part.page_count)) {
                steps.push(Step::Locked(part));
            } else {
                let result = act(&mut protected, store, first + page, &part);
                push_steps(&part, result, steps);
            }
            page += part.page_count;
        }
    }
}

/// Adds the outcome of a run that held what it should.
fn push_steps(run: &Run, result: Result<(), MapError>, steps: &mut Vec<Step>) {
    let Err(MapError { source, replaced }) = result else {
        steps.push(Step::Done(*run));
        return;
    };
    let code = source.raw_os_error().unwrap_or(libc::EIO);
    let mut next = 0;
    let ends = run.page_count..run.page_count;
    for Range { start, end } in replaced.into_iter().chain([ends]) {
        if next < start {
            let kept = run.part(next, start - next);
            steps.push(Step::Refused(kept, io::Error::from_raw_os_error(code)));
        }
        if start < end {
            steps.push(Step::Done(run.part(start, end - start)));
        }
        next = end;
    }
}

/// Whether the bytes of the page at `offset` in a run are what its action takes them for.
fn holds(store: &StoreAccess, action: Action, offset: u32, bytes: &[u8; PAGE_SIZE]) -> bool {
    match action {
        Action::Map(slot) | Action::Return(slot) => store.view.equals(slot.offset(offset), bytes),
        Action::Discard | Action::Replace => is_zero(bytes),
    }
}

/// Does what is to be done with pages that hold what they should and cannot change.
fn act(
    protected: &mut Protected<'_>,
    store: &StoreAccess,
    first: u32,
    run: &Run,
) -> Result<(), MapError> {
    match run.action {
        Action::Map(slot) => protected.map_slots(first, run.page_count, &store.memfd, slot),
        Action::Return(_) | Action::Discard => Ok(protected.discard(first, run.page_count)?),
        Action::Replace => protected.map_anonymous(first, run.page_count),
    }
}
