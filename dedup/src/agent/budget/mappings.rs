//! How many mappings the kernel keeps for a VM's memory, kept by difference.
//!
//! Mappings must end where extents do. Where they need not, the kernel joins neighbours, but
//! for *seams*: it keeps apart anonymous memory that was moved to other addresses and such that was
//! mapped there since, and whatever was first written while it was apart, be it for the moment
//! between mapping it and registering it. So it is queried at the ends of what was mapped, and only there: what
//! it has joined it never parts by itself, nor does it join anything that nobody touches.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Lack;
use crate::agent::Agent;
use crate::agent::merge::runs::{Action, Run};
use crate::extents::ExtentMap;
use crate::sys::Space;
use crate::types::count;
use crate::{LinearIndex, PAGE_SIZE};

/// Extents between two runs that are registered together, at most: the kernel goes through their mappings, which
/// takes longer than registering another run by itself.
const MAX_REGISTERED_EXTENTS: usize = 8;

/// Whether a VM counts as one of those that share the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum BudgetShare {
    /// It holds no mappings for what is folded, and does not lack any.
    None,
    /// It does, or lacks some.
    Counted,
}

impl Agent {
    /// Notes what pages lie over now, and what that does to the number of mappings.
    /// O(log extents + extents that lay there).
    ///
    /// The run is to be [registered](Self::register_runs) then.
    pub(in crate::agent) fn place(&mut self, run: &Run) {
        let more = more_vmas_with(&self.space, &mut self.extents, run);
        let mut vmas = self.vmas.saturating_add_signed(more);
        if run.is_mapped() {
            let inside = run.linear.offset(1)..run.end();
            vmas -= self.seams.extract_if(inside, |_| true).count() as u64;
        }
        self.count_mappings(vmas);
    }

    /// [Registers](Self::register) what was mapped anew: `runs`, ascending. Those that lie near each other are registered as one,
    /// with what is between them. O(runs · log extents + mappings of the runs).
    pub(in crate::agent) fn register_runs(&mut self, runs: &[Range<LinearIndex>]) {
        let near = |one: &Range<LinearIndex>, next: &Range<LinearIndex>| {
            let mut between = self.extents.overlapping(one.end, next.start);
            one.end >= next.start || between.nth(MAX_REGISTERED_EXTENTS).is_none()
        };
        let groups: Vec<&[Range<LinearIndex>]> = runs.chunk_by(near).collect();
        for group in groups {
            self.register_group(group);
        }
    }

    fn register_group(&mut self, runs: &[Range<LinearIndex>]) {
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return };
        let (first, last) = (first.start, last.end);
        self.work.registered_mappings += 1 + self.extents.overlapping(first, last).count() as u64;
        self.register(first, last.0 - first.0);
        // What could not be registered before may have been now, and so be one with its neighbours.
        let mut edges = self.policy_edges(first, last);
        edges.extend(runs.iter().flat_map(|run| [run.start, run.end]));
        self.recount_seams(first, last, &edges);
    }

    /// Queries where the kernel begins mappings that it need not, at `edges` and where it did between two pages.
    /// O((edges + seams) · log extents).
    pub(super) fn recount_seams(
        &mut self,
        first: LinearIndex,
        last: LinearIndex,
        edges: &[LinearIndex],
    ) {
        let before: Vec<LinearIndex> = self.seams.range(first..=last).copied().collect();
        let count_before = self.seams.len() as u64;
        for page in edges.iter().copied().chain(before) {
            if self.is_seam(page) {
                self.seams.insert(page);
            } else {
                self.seams.remove(&page);
            }
        }
        self.count_mappings(self.vmas + self.seams.len() as u64 - count_before);
    }

    /// Does so at the ends of a run of pages, and wherever the kernel begins a mapping in it now, as far as it
    /// does `most` times. O((mappings of the run + seams) · log extents).
    pub(in crate::agent) fn recount_within(&mut self, run: &Range<LinearIndex>, most: usize) {
        let Range { start: first, end } = *run;
        let mut edges = vec![first, end];
        let mut next = first;
        while next < end && edges.len() < most {
            let span = self.space.span(next, end.0 - next.0);
            let after = self.bounds(span.start()).map_or(end, |bounds| {
                next.offset(count((bounds.end - span.start()) / PAGE_SIZE).min(span.page_count()))
            });
            edges.push(after);
            next = after;
        }
        self.recount_seams(first, end, &edges);
    }

    /// Marks what was mapped into `page_count` pages from `linear` on as guest memory and has the
    /// userfaultfd cover it, so that it can be protected when its pages are merged again. One
    /// system call for all, which also lets the kernel join neighbouring mappings.
    pub(in crate::agent) fn register(&mut self, linear: LinearIndex, page_count: u32) {
        for (first, span) in self.space.spans(linear.run(page_count)) {
            let registered = span
                .advise_guest()
                .and_then(|()| self.apply_policies(first, span))
                .and_then(|()| self.process.uffd.register(span));
            if let Err(error) = registered {
                // Its pages cannot be protected, so they stay as they are until this succeeds.
                let Range { start, end } = first.run(span.page_count());
                let others = self.unmarked_memory.take().unwrap_or(start..end);
                self.unmarked_memory = Some(others.start.min(start)..others.end.max(end));
                log::warn!("VM {}: cannot mark merged memory: {error}", self.vm);
                self.events.errors += 1;
            }
        }
    }

    /// Marks what could not be marked when it was mapped. O(1) where there is nothing, and otherwise
    /// O(mappings among which it is).
    pub(in crate::agent) fn mark_unmarked(&mut self) {
        if self.mark_delay.begin_pass()
            && let Some(pages) = self.unmarked_memory.take()
        {
            self.register_runs(&[pages]);
            self.mark_delay.note(self.unmarked_memory.is_none());
        }
    }

    /// Counts all mappings of the VM's memory anew. O(mappings of the VM's memory).
    pub(in crate::agent) fn recount_mappings(&mut self) {
        let mut seams = BTreeSet::new();
        for piece in self.space.pieces() {
            let span = self.space.whole(piece);
            let (mut addr, end) = (span.start(), span.start() + span.len_bytes());
            while let Some(bounds) = self.bounds(addr)
                && bounds.end < end
            {
                addr = bounds.end;
                let page = piece.linear.offset(count((addr - span.start()) / PAGE_SIZE));
                if self.extents.joins(page) {
                    seams.insert(page);
                }
            }
        }
        self.seams = seams;
        self.count_mappings(self.vma_count());
    }

    /// Whether a page begins a mapping whatever it and the page before it lie over: that is elsewhere, or
    /// has another policy. O(log pieces + policies).
    pub(crate) fn is_apart(&self, page: LinearIndex) -> bool {
        self.begins_piece(page) || !self.policy_edges(page, page).is_empty()
    }

    /// All pages for which that [is so](Self::is_apart), ascending. O(pieces + policies).
    pub(crate) fn apart_pages(&self) -> Vec<LinearIndex> {
        let mut pages = self.policy_edges(LinearIndex(0), LinearIndex(u32::MAX));
        pages.extend(self.space.pieces().iter().map(|piece| piece.linear));
        pages.sort_unstable();
        pages.dedup();
        pages
    }

    fn begins_piece(&self, page: LinearIndex) -> bool {
        page >= self.space.end() || self.space.piece(page).linear == page
    }

    /// Whether the kernel begins a mapping at a page where it need not.
    fn is_seam(&self, page: LinearIndex) -> bool {
        if self.begins_piece(page) || !self.extents.joins(page) {
            return false;
        }
        let addr = self.space.span(page, 1).start();
        self.bounds(addr).is_some_and(|bounds| bounds.start == addr)
    }

    /// The addresses of the mapping that one of the VM's lies in, if the kernel can be queried.
    fn bounds(&self, addr: usize) -> Option<Range<usize>> {
        self.process.bounds.as_ref()?.at(addr).ok()
    }

    /// What the count must be: all that the extents keep apart, and the seams. O(extents).
    pub(in crate::agent) fn vma_count(&self) -> u64 {
        let pieces = self.space.pieces().iter();
        let vmas = pieces.map(|piece| self.extents.vma_count(piece.linear, piece.end()) as u64);
        vmas.sum::<u64>() + self.seams.len() as u64
    }

    pub(in crate::agent) fn count_mappings(&mut self, vmas: u64) {
        // In as many pieces as it has now: it may have been moved since.
        let is_counted =
            vmas > self.space.pieces().len() as u64 || self.deferral.lack != Lack::Nothing;
        let share = if is_counted { BudgetShare::Counted } else { BudgetShare::None };
        if std::mem::replace(&mut self.share, share) != share {
            self.budget.count_vm(is_counted);
        }
        // Those of pages that have left their slots come back one by one.
        let shared = vmas.min(2 * u64::from(self.shared.count()) + 1);
        self.budget.update(self.vm, self.vmas, vmas, shared);
        self.vmas = vmas;
    }
}

/// Adds a run to the plan. Returns how many more mappings it makes.
/// O(log extents + extents that lay there).
pub(in crate::agent) fn more_vmas_with(space: &Space, planned: &mut ExtentMap, run: &Run) -> i64 {
    let before = count_near(space, planned, run);
    match (run.action, run.extent()) {
        (Action::Map(_), Some(extent)) => planned.insert(extent, |_| {}),
        (Action::Replace, _) => planned.remove(run.linear, run.page_count, |_| {}),
        _ => {}
    }
    count_near(space, planned, run) - before
}

/// The mappings of a run's pages and their neighbours, which are all that it can change.
fn count_near(space: &Space, extents: &ExtentMap, run: &Run) -> i64 {
    let Range { start, end } = run.with_neighbours();
    let (mut vmas, mut next) = (0, run.linear);
    while next < run.end() {
        let piece = space.piece(next);
        vmas += extents.vma_count(piece.linear.max(start), piece.end().min(end));
        next = piece.end();
    }
    vmas.cast_signed() as i64
}
