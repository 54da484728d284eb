//! Guest pages over slots made ordinary anonymous memory again, under running guests.
//!
//! A private copy of a page over a slot lies in a mapping of the store, and keeps the anonymous memory
//! on either side apart. To have one mapping again, the pages must come to lie in one that the kernel
//! joins with its neighbours: with the same flags, whose page offset continues theirs, and that has no
//! `anon_vma` of its own, hence no page. And nobody may see it without its pages. So:
//!
//! 1. the pages are write-protected and copied to a buffer, but for those that are not there: which
//!    these are is known only when nobody can write any more;
//! 2. the neighbouring page on either side and an untouched anonymous mapping elsewhere are registered
//!    with a userfaultfd for missing pages;
//! 3. `mremap` moves that mapping over the pages, in one step, and joins it with the neighbours:
//!    an untouched mapping takes the page offset of where it goes, and the registration goes with it
//!    (`UFFD_FEATURE_EVENT_REMAP`). Who touches a page sleeps, reader or writer;
//! 4. `UFFDIO_MOVE` carries the pages from the buffer there, which takes no memory and cannot run out
//!    of it (Linux 6.8);
//! 5. all are unregistered, which wakes who sleeps; who was about to is woken after it.
//!
//! If step 3 or 4 fails when the old mapping is gone, the buffer itself, which holds the bytes, is
//! moved there instead: the mappings are not joined then. So it is, too, in a process that may not
//! hold the kernel's faults off: whoever reads there at any time finds the bytes.
//!
//! Source: `copy_vma` and `anon_vma_compatible` of `mm/vma.c` and `mm/rmap.c`,
//! `Documentation/admin-guide/mm/userfaultfd.rst`; seen in Linux 6.12 and 6.18.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, iter};

use super::backoff::Backoff;
use super::policy::MemoryPolicy;
use super::protect::Protected;
use super::span::Span;
use super::uffd::{Faults, Userfaultfd, UserfaultfdError};
use super::uffd_thread::{Stop, UffdThread};
use scratch_pair::ScratchPair;

/// Pages that are moved at once, at most: a bound on how long who uses them can sleep.
pub(crate) const MAX_MOVE_PAGES: u32 = 512;

/// Why pages over slots cannot be made anonymous memory; they stay as they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageMoverError {
    /// The kernel cannot (before Linux 6.8), or the process may not.
    #[error("cannot open a userfaultfd that moves pages")]
    Userfaultfd(#[from] UserfaultfdError),
    /// There is no thread, no descriptor or no address space for it.
    #[error("cannot prepare the moving of pages")]
    Prepare(#[source] io::Error),
}

/// What is needed to make pages over slots anonymous memory again.
#[derive(Debug)]
pub(crate) struct PageMover {
    uffd: Arc<Userfaultfd>,
    scratch: Mutex<ScratchPair>,
    /// Reads the events that `mremap` waits for.
    _reader: UffdThread,
}

impl PageMover {
    /// Reserves what is needed, but for memory, to move pages that so much is held off from.
    ///
    /// # Errors
    ///
    /// When the kernel is too old, or has no descriptor or thread to spare; nothing is left behind.
    pub(crate) fn new(faults: Faults) -> Result<Self, PageMoverError> {
        let uffd = Arc::new(Userfaultfd::for_moving(faults)?);
        let scratch = ScratchPair::new(&uffd).map_err(PageMoverError::Prepare)?;
        let reader = UffdThread::start("pagefold-remap", Arc::clone(&uffd), read_until);
        let reader = reader.map_err(PageMoverError::Prepare)?;
        Ok(Self { uffd, scratch: Mutex::new(scratch), _reader: reader })
    }

    /// Whether pages become one mapping with their neighbours: not where the kernel's faults cannot be held
    /// off.
    pub(crate) fn joins_neighbours(&self) -> bool {
        self.uffd.faults() == Faults::All
    }

    /// Has the pages `window` of `around` be anonymous memory with the bytes that they have, in one
    /// mapping with the pages of `around` on either side, if these are anonymous: at most one page on
    /// each, and only where the kernel's faults are held off, too. Pages of the window that are in none of `present` (ascending, relative to the window) are looked
    /// at first, and are not there afterwards if they are zero. Those that are, are where `policy` has them.
    ///
    /// The caller advises `around` as guest memory and registers it with `uffd` again, whatever came
    /// of it.
    ///
    /// # Errors
    ///
    /// The kernel's; the pages hold what they held, and are as they were or, by the error, have been
    /// made anonymous, but not one with their neighbours.
    pub(crate) fn make_anonymous(
        &self,
        uffd: &Userfaultfd,
        around: Span<'_>,
        window: Range<u32>,
        present: &[Range<u32>],
        policy: Option<&MemoryPolicy>,
    ) -> Result<(), MakeAnonymousError> {
        let scratch = &mut *self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = MakeAnonymousError::Kept;
        let page_count = window.end - window.start;
        assert!(page_count <= MAX_MOVE_PAGES, "a window of {page_count} pages");
        scratch.refill(&self.uffd, page_count).map_err(kept)?;
        scratch.adopt_policy(policy);
        let pages = around.part(window.start, page_count);
        let mut protected = Protected::new(uffd, pages).map_err(kept)?;
        for run in written(&protected, present, page_count) {
            let source = pages.part(run.start, run.end - run.start);
            if let Err(error) = scratch.buffer.fill(run.start, source) {
                scratch.buffer.clear();
                return Err(kept(error));
            }
        }
        let result = self.replace(uffd, around, &window, scratch);
        if !matches!(result, Err(MakeAnonymousError::Kept(_))) {
            protected.mark_replaced(0, page_count);
        }
        // Wakes those that slept on a protected page.
        drop(protected);
        result
    }

    /// Maps what the buffer holds over the window, which is protected.
    fn replace(
        &self,
        uffd: &Userfaultfd,
        around: Span<'_>,
        window: &Range<u32>,
        scratch: &mut ScratchPair,
    ) -> Result<(), MakeAnonymousError> {
        let page_count = window.end - window.start;
        let pages = around.part(window.start, page_count);
        if self.uffd.faults() == Faults::OfUser {
            // The kernel does not sleep on a page that is not there: a system call that reads it fails.
            return scratch.swap_in_buffer(pages).map_err(MakeAnonymousError::Kept);
        }
        let mut joined = window.clone();
        for edge in [0..window.start, window.end..around.page_count()] {
            if edge.is_empty() {
                continue;
            }
            let page = around.part(edge.start, edge.end - edge.start);
            match uffd.unregister(page).and_then(|()| self.uffd.register_missing(page)) {
                Ok(()) => joined = joined.start.min(edge.start)..joined.end.max(edge.end),
                // The mappings will not be joined there, and that is all.
                Err(error) => log::debug!("cannot exchange a page's registration: {error}"),
            }
        }
        let result = self.move_over(pages, scratch);
        // Who sleeps on a page that is not there wakes. Of pages that are as they were, only the
        // neighbours are registered here.
        let registered = match &result {
            Err(MakeAnonymousError::Kept(_)) => {
                vec![joined.start..window.start, window.end..joined.end]
            }
            _ => vec![joined],
        };
        for part in registered.into_iter().filter(|part| !part.is_empty()) {
            self.unregister(around.part(part.start, part.end - part.start));
        }
        result
    }

    /// Wakes who sleeps on pages, and has nobody sleep there any more.
    fn unregister(&self, pages: Span<'_>) {
        let mut backoff = Backoff::new("unregister them");
        while let Err(error) = self.uffd.unregister(pages) {
            if error.raw_os_error() != Some(libc::ENOMEM) {
                log::error!("guest pages stay registered: {error}");
                break;
            }
            // As for mapping: for a moment.
            backoff.wait(&error);
        }
        // The kernel wakes first, and then waits for faults that have found a page missing and are about to
        // sleep; a page that stays missing is none that their last look finds.
        if let Err(error) = self.uffd.wake(pages) {
            log::error!("page faults may be held up for good: {error}");
        }
    }

    /// Maps an untouched mapping over the pages and moves the buffer's there.
    fn move_over(
        &self,
        pages: Span<'_>,
        scratch: &mut ScratchPair,
    ) -> Result<(), MakeAnonymousError> {
        if let Err(error) = scratch.move_untouched(pages) {
            if pages.is_mapped() {
                scratch.buffer.clear();
                return Err(MakeAnonymousError::Kept(error));
            }
            scratch.land_buffer(pages, 0);
            return Err(MakeAnonymousError::Apart(error));
        }
        let (moved_bytes, result) = self.fill(pages, scratch.buffer.addresses().start);
        result.map_err(|error| {
            scratch.land_buffer(pages, moved_bytes);
            MakeAnonymousError::Apart(error)
        })
    }

    /// Moves the buffer's pages to the missing ones; returns how many bytes were dealt with, and why not
    /// all.
    fn fill(&self, pages: Span<'_>, buffer: usize) -> (usize, io::Result<()>) {
        #[cfg(test)]
        if super::scratch::faults::take(super::scratch::faults::Fault::Pages) {
            let (moved_bytes, _) = self.uffd.move_pages(pages.part(0, 1), buffer);
            return (moved_bytes, Err(io::Error::from_raw_os_error(libc::ENOMEM)));
        }
        self.uffd.move_pages(pages, buffer)
    }
}

/// Why pages over slots were not made one mapping with their neighbours. They hold what they held.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeAnonymousError {
    /// They are as they were.
    #[error("pages cannot be made anonymous memory")]
    Kept(#[source] io::Error),
    /// They lie in anonymous memory, which the kernel will not join with their neighbours.
    #[error("anonymous memory cannot be joined with its neighbours")]
    Apart(#[source] io::Error),
}

/// The runs of protected pages that are present, and those of the others that somebody has written since
/// that was found out.
fn written(protected: &Protected<'_>, present: &[Range<u32>], page_count: u32) -> Vec<Range<u32>> {
    let (mut runs, mut next) = (Vec::new(), 0);
    for run in present.iter().cloned().chain(iter::once(page_count..page_count)) {
        let is_zero = |page: u32| protected.page(page).iter().all(|&byte| byte == 0);
        let late = (next..run.start).filter(|&page| !is_zero(page));
        runs.extend(late.map(|page| page..page + 1));
        next = run.end;
        if !run.is_empty() {
            runs.push(run);
        }
    }
    runs
}

/// Reads events until it is to stop.
fn read_until(uffd: &Userfaultfd, stop: &Stop) {
    while stop.wait_for(uffd) {
        uffd.read_events();
    }
}

mod scratch_pair;
#[cfg(test)]
mod tests;
