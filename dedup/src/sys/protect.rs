//! Write-protected pages, and what may be done to them before they are unprotected.

use std::io;

use super::fixed::MapError;
use super::memfd::Memfd;
use super::span::Span;
use super::uffd::Userfaultfd;
use crate::{PAGE_SIZE, Slot};

/// Pages that nobody can write while this value lives: a writer, guest or host, sleeps until they
/// are unprotected, and then faults again on whatever is mapped there.
///
/// Pages that are not there are covered too (`UFFD_FEATURE_WP_UNPOPULATED`): the first touch of
/// one by a writer sleeps like any other.
#[derive(Debug)]
pub(crate) struct Protected<'a> {
    uffd: &'a Userfaultfd,
    span: Span<'a>,
    /// Pages whose mapping was replaced: `first..end` runs in ascending order. They are neither
    /// protected nor registered any more.
    replaced: Vec<(u32, u32)>,
}

impl<'a> Protected<'a> {
    /// Write-protects every page of `span`; the mappings under it must be registered.
    ///
    /// # Errors
    ///
    /// The kernel's; no page is left protected.
    pub(crate) fn new(uffd: &'a Userfaultfd, span: Span<'a>) -> io::Result<Self> {
        let protected = Self { uffd, span, replaced: Vec::new() };
        // On an error the value is dropped, which unprotects what had been done.
        uffd.write_protect(span, true)?;
        Ok(protected)
    }

    /// The bytes of page `index`, which cannot change while they are borrowed.
    pub(crate) fn page(&self, index: u32) -> &[u8; PAGE_SIZE] {
        let page = self.span.part(index, 1);
        debug_assert!(!self.is_replaced(index), "page {index} is no longer protected");
        // SAFETY: the page is mapped readable as long as the span's space lives, and is
        // write-protected from before this call until `self` is dropped, which this borrow
        // outlives not: `replace` takes `&mut self`.
        unsafe { &*page.as_ptr().cast::<[u8; PAGE_SIZE]>() }
    }

    /// Maps the `page_count` pages from page `first` on to the slots from `slot` on.
    ///
    /// # Errors
    ///
    /// The kernel's (`ENOMEM` at the limit of mappings); those that are not reported as replaced keep
    /// their old mapping.
    pub(crate) fn map_slots(
        &mut self,
        first: u32,
        page_count: u32,
        store: &Memfd,
        slot: Slot,
    ) -> Result<(), MapError> {
        let offset_bytes = u64::from(slot.0) * PAGE_SIZE as u64;
        let result = self.span.part(first, page_count).map_file(store.raw(), offset_bytes);
        self.note_replaced(first, page_count, result)
    }

    /// Maps anonymous memory over the `page_count` pages from page `first` on.
    ///
    /// # Errors
    ///
    /// As for [`map_slots`](Self::map_slots).
    pub(crate) fn map_anonymous(&mut self, first: u32, page_count: u32) -> Result<(), MapError> {
        let result = self.span.part(first, page_count).map_anonymous();
        self.note_replaced(first, page_count, result)
    }

    /// Marks those of the pages from page `first` on whose mapping was replaced.
    fn note_replaced(
        &mut self,
        first: u32,
        page_count: u32,
        result: Result<(), MapError>,
    ) -> Result<(), MapError> {
        match &result {
            Ok(()) => self.mark_replaced(first, page_count),
            Err(error) => {
                for part in &error.replaced {
                    self.mark_replaced(first + part.start, part.end - part.start);
                }
            }
        }
        result
    }

    /// Gives pages back to the kernel without changing the mapping: anonymous ones read as zeroes
    /// from now on, those over a slot as the slot.
    ///
    /// # Errors
    ///
    /// The kernel's; the pages keep their bytes.
    pub(crate) fn discard(&mut self, first: u32, page_count: u32) -> io::Result<()> {
        self.span.part(first, page_count).discard()
    }

    /// Unprotects each stretch that was not replaced, then wakes those who wait, whether or not all
    /// could be unprotected: nobody else will, and who still may not write goes back to sleep.
    fn unprotect_piecewise(&self) -> io::Result<()> {
        let end = self.span.page_count();
        let (mut next, mut result) = (0, Ok(()));
        for &(first, after) in self.replaced.iter().chain([&(end, end)]) {
            if next < first {
                let stretch = self.span.part(next, first - next);
                result = result.and(self.uffd.write_protect(stretch, false));
            }
            next = after;
        }
        result.and(self.uffd.wake(self.span))
    }

    /// Notes that pages have a new mapping, which is neither protected nor registered.
    pub(super) fn mark_replaced(&mut self, first: u32, page_count: u32) {
        debug_assert!(self.replaced.last().is_none_or(|&(_, end)| end <= first), "out of order");
        self.replaced.push((first, first + page_count));
    }

    fn is_replaced(&self, index: u32) -> bool {
        self.replaced.iter().any(|&(first, end)| (first..end).contains(&index))
    }
}

impl Drop for Protected<'_> {
    /// Unprotects what is still protected and wakes every writer.
    fn drop(&mut self) {
        let replaced_count: u32 = self.replaced.iter().map(|&(first, end)| end - first).sum();
        let result = if replaced_count == self.span.page_count() {
            self.uffd.wake(self.span)
        } else {
            // What was mapped anew must be registered before one call can cover all. Unprotecting
            // also removes the marker that a discarded page over a slot leaves behind, on which a
            // later writer would sleep for good.
            let registered =
                if replaced_count == 0 { Ok(()) } else { self.uffd.register(self.span) };
            registered
                .and_then(|()| self.uffd.write_protect(self.span, false))
                .or_else(|_| self.unprotect_piecewise())
        };
        if let Err(error) = result {
            log::error!("cannot let guest pages go: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
