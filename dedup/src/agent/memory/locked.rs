//! Memory that is locked while its VM runs, by the program that the VMM is a part of.
//!
//! The kernel gives every page of a locked private mapping its own memory, those over slots, too, and no
//! change source names them. Such memory is refused when a VM is attached; what is locked later is noticed
//! at the VM's next visit, wherever it lies, and is not folded for as long as it is locked. The kernel counts what
//! a process has locked. When that changes the mappings are looked at; while it does not, and is not nothing, a part of them
//! each visit, as one part may have been locked and as large another unlocked.
//!
//! A new mapping is not locked. So what was locked is locked again where other memory is mapped for its owner, and
//! what would be shared is left alone if it is locked: whether anything is, is looked up once a step, and then for each
//! run of pages when it is to be mapped. A lock that is made later in the step may be lost.

use std::collections::VecDeque;
use std::ops::Range;

use crate::LinearIndex;
use crate::agent::Agent;
use crate::agent::stretch::sweep_part;
use crate::page_range::PageRange;
use crate::sys::{locked_bytes, locks_new_mappings, note_locked_bytes};

/// How often a VM's memory is looked at for what is locked, at most: about 1 ms.
const LOOKS: usize = 1 << 10;

/// Extents that a visit looks at while the process has as much locked as before, at most, with what is between them: about 50 µs.
const PART_EXTENTS: usize = 256;

/// Locked ranges that are named one by one, at most.
const NAMED: usize = 8;

/// What of a VM's memory is locked, as of the last visit.
#[derive(Debug, Default)]
pub(in crate::agent) struct Locked {
    /// Whether what is mapped from now on is locked.
    is_new: bool,
    /// What the process had locked when the mappings were looked at last, if the kernel reports it.
    bytes: Option<u64>,
    /// Runs of locked pages, ascending.
    runs: Vec<Range<LinearIndex>>,
    /// Whether they are just the locked ones: if there are very many, unlocked ones between them count, too.
    is_exact: bool,
    /// From which page on the next visit looks whether others are locked.
    next: LinearIndex,
}

impl Locked {
    pub(in crate::agent) fn runs(&self) -> &[Range<LinearIndex>] {
        &self.runs
    }
}

impl Agent {
    /// Finds out what of the VM's memory has been locked since the last visit, or is not any more. O(1)
    /// while the process has nothing locked, O(mappings of a part) while it has as much locked as before, and
    /// O(mappings) with a bound otherwise.
    pub(in crate::agent) fn notice_locked(&mut self) {
        self.locked.is_new = locks_new_mappings().unwrap_or(false);
        let bytes = locked_bytes();
        let is_same = bytes.is_some() && bytes == self.locked.bytes;
        if is_same && (bytes == Some(0) || self.is_next_part_as_known()) {
            return;
        }
        let (runs, is_exact) =
            if bytes == Some(0) { (Vec::new(), true) } else { self.find_locked() };
        if bytes != Some(0)
            && let Err(error) = self.store.view.unlock()
        {
            log::warn!("the store stays locked: {error}");
        }
        // That of the store counts no more.
        note_locked_bytes();
        self.locked.bytes = locked_bytes();
        self.locked.is_exact = is_exact;
        let before = std::mem::replace(&mut self.locked.runs, runs);
        if before == self.locked.runs {
            return;
        }
        self.recount_locked(&before);
        self.recount_locked(&self.locked.runs.clone());
        if self.locked.runs.is_empty() {
            log::info!("VM {}: its memory is not locked any more, and is folded again", self.vm);
            return;
        }
        log::warn!(
            "VM {}: {} were locked (mlock or mlockall), so that they cannot be shared; they are folded again \
             when they are unlocked",
            self.vm,
            describe(&self.locked.runs)
        );
        for run in &self.locked.runs {
            // The kernel has given them memory of their own: the page map has which.
            for folded in [&self.shared, &self.zero] {
                folded
                    .runs_within(run.clone())
                    .for_each(|pages| self.undrained_dirty.insert_range(pages));
            }
        }
    }

    /// The runs of locked ones among pages that lie side by side and are about to be mapped anew, which are to
    /// be [locked again](Self::lock_again) then. O(mappings of the pages).
    ///
    /// Asked at that moment: what was locked since the VM's last visit is to stay so, too.
    pub(in crate::agent) fn locked_among(
        &self,
        pages: Range<LinearIndex>,
    ) -> Vec<Range<LinearIndex>> {
        let span = self.space.span(pages.start, pages.page_count());
        let runs = span.locked_runs(self.process.bounds.as_ref()).into_iter();
        runs.map(|run| pages.start.offset(run.start)..pages.start.offset(run.end)).collect()
    }

    /// Locks the pages of `mapped` that were locked before other memory was mapped there: the runs of `locked`,
    /// in which the pages of `present` are there. A locked page is missing only if it was locked to get memory when it is first
    /// used, or has been given up since. O(pages).
    ///
    /// The caller sees to it that the [edges](Self::recount_locked) are counted when the memory is registered.
    pub(in crate::agent) fn lock_again(
        &mut self,
        locked: &[Range<LinearIndex>],
        mapped: &Range<LinearIndex>,
        present: &[Range<LinearIndex>],
    ) {
        for run in locked {
            let run = run.intersection(mapped);
            if run.is_empty() {
                continue;
            }
            let is_whole = present.iter().any(|it| it.intersection(&run) == run);
            let span = self.space.span(run.start, run.page_count());
            if let Err(error) = span.lock(is_whole) {
                log::error!(
                    "VM {}: {} were locked, and cannot be locked again: {error}",
                    self.vm,
                    describe(std::slice::from_ref(&run))
                );
                self.events.errors += 1;
            }
        }
    }

    /// Counts the mappings that the kernel keeps apart because one of them is locked, or was: `runs` of pages.
    /// O(mappings of the runs), with a bound for each.
    pub(in crate::agent) fn recount_locked(&mut self, runs: &[Range<LinearIndex>]) {
        for run in runs {
            self.recount_within(run, LOOKS);
        }
    }

    /// Whether what is mapped now can be shared.
    pub(in crate::agent) fn can_map(&self) -> bool {
        !self.locked.is_new
    }

    /// Whether a page was locked at the last visit. O(log runs).
    pub(crate) fn is_locked(&self, page: LinearIndex) -> bool {
        let after = self.locked.runs.partition_point(|run| run.start <= page);
        after.checked_sub(1).is_some_and(|at| self.locked.runs[at].contains(&page))
    }

    /// Whether any of the process's memory is locked, as of the first call in this step: looking it up
    /// takes about as long as merging a page.
    pub(in crate::agent) fn may_be_locked(&mut self) -> bool {
        if self.work.lock_lookups == 0 {
            self.work.lock_lookups = 1;
            note_locked_bytes();
        }
        locked_bytes() != Some(0)
    }

    /// Has the next visit look at all mappings: something is locked that was not at the last one.
    pub(in crate::agent) fn look_for_locks_anew(&mut self) {
        self.locked.bytes = None;
    }

    /// Whether just those pages are locked in the next part of the memory of which that is known.
    /// [Parts](sweep_part) are smaller where there are very many mappings. O(mappings of the part).
    fn is_next_part_as_known(&mut self) -> bool {
        let all = self.dirty.whole();
        let mut part = (self.locked.next..all.end).first(sweep_part(all.page_count()));
        if let Some(beyond) = self.extents.overlapping(part.start, part.end).nth(PART_EXTENTS) {
            part.end = beyond.linear;
        }
        self.locked.next = if part.end == all.end { all.start } else { part.end };
        let extents = self.extents.overlapping(part.start, part.end).count();
        self.work.registered_mappings += 1 + extents as u64;
        let mut is_as_known = true;
        while !part.is_empty() && is_as_known {
            let span = self.space.span(part.start, part.page_count());
            let here = part.first(span.page_count());
            let clip = |run: &Range<LinearIndex>| run.intersection(&here);
            let known = self.locked.runs.iter().map(clip).filter(|run| !run.is_empty());
            let known: Vec<Range<LinearIndex>> = known.collect();
            // In ways that differ, too: memory that is locked when it is first used is apart from what is locked.
            self.recount_locked(&known);
            let found = self.locked_among(here.clone());
            let is_inside = |run: &Range<LinearIndex>| {
                known.iter().any(|known| known.intersection(run) == *run)
            };
            is_as_known =
                if self.locked.is_exact { found == known } else { found.iter().all(is_inside) };
            part.start = here.end;
        }
        is_as_known
    }

    /// Runs of pages in which the locked ones are, and whether these are just they: it may take too many looks.
    fn find_locked(&self) -> (Vec<Range<LinearIndex>>, bool) {
        let pieces = self.space.pieces().iter();
        let mut suspects: VecDeque<Range<LinearIndex>> =
            pieces.map(|piece| piece.linear..piece.end()).collect();
        let (mut looks, mut runs, mut is_exact) = (0, Vec::new(), true);
        // The largest first, so that what is left when there have been enough is small.
        while let Some(pages) = suspects.pop_front() {
            let span = self.space.span(pages.start, pages.page_count());
            looks += 1;
            if !span.is_locked() {
                continue;
            }
            let end = span.start() + span.len_bytes();
            let bounds = self.process.bounds.as_ref();
            let mapping = bounds.and_then(|bounds| bounds.at(span.start()).ok());
            let is_one = mapping.is_some_and(|mapping| mapping.end >= end);
            if is_one || pages.page_count() == 1 || looks >= LOOKS {
                is_exact &= is_one || pages.page_count() == 1;
                runs.push(pages);
            } else {
                let middle = pages.start.offset(pages.page_count() / 2);
                suspects.extend([pages.start..middle, middle..pages.end]);
            }
        }
        runs.sort_unstable_by_key(|run: &Range<LinearIndex>| run.start);
        let mut joined: Vec<Range<LinearIndex>> = Vec::new();
        for run in runs {
            match joined.last_mut() {
                Some(last) if last.end == run.start => last.end = run.end,
                _ => joined.push(run),
            }
        }
        (joined, is_exact)
    }
}

/// Runs of pages for the log.
fn describe(runs: &[Range<LinearIndex>]) -> String {
    let ranges = runs.iter().take(NAMED).map(|run| format!("{} to {}", run.start, run.end.0 - 1));
    let more = if runs.len() > NAMED { ", ..." } else { "" };
    let page_count: u32 = runs.iter().map(PageRange::page_count).sum();
    format!("{page_count} pages, {}{more},", ranges.collect::<Vec<_>>().join(", "))
}
