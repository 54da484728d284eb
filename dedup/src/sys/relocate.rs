//! Moving guest memory to other host addresses.
//!
//! `mremap` carries pages over with whatever stands behind them, private copies and slots, and
//! copies none, nor does it unlock them. It takes one VMA at a time before Linux 6.17, and later still where a userfaultfd
//! covers it. `MREMAP_DONTUNMAP` leaves an empty mapping where the pages were, which anonymous
//! memory then replaces: at no time is there a hole in a place that somebody will unmap one day,
//! in which another thread's mapping could have come to lie.
//!
//! The userfaultfd must not cover what moves. `mremap` takes it off the mapping at the new address,
//! and that may by then be one with its neighbour: another VM's memory, which nobody could protect
//! any more. (`mremap_userfaultfd_prep` after `copy_vma`, seen in Linux 6.18.)
//!
//! Source: `mremap(2)`; private mappings of files need Linux 5.13.

use std::io;
use std::sync::Arc;

use super::fixed::move_over;
use super::maps::ProcessMapping;
use super::memory::GuestMemory;
use super::space::{Piece, Space};
use super::span::Span;
use super::uffd::Userfaultfd;
use crate::{LinearIndex, PAGE_SIZE};

/// Why memory was not moved to other host addresses. Unless the variant is documented otherwise, all is where it was.
#[derive(Debug, thiserror::Error)]
pub enum RemapError {
    /// There is nothing to move.
    #[error("the VM has no {page_count} pages from page {} on", linear.0)]
    NoPages {
        /// The first page of the request.
        linear: LinearIndex,
        /// How many.
        page_count: u32,
    },
    /// The destination has another size, or several regions.
    #[error(
        "{expected} pages need a destination of one region of just that size, not {found} pages \
         in {regions} regions"
    )]
    Destination {
        /// Pages to be moved.
        expected: u32,
        /// Pages of the destination.
        found: u64,
        /// Regions that they are in.
        regions: usize,
    },
    /// The destination is locked, so that the kernel would copy every shared page at once.
    #[error("the memory at {host_addr:#x} is locked (mlock or mlockall); unlock it with munlock")]
    Locked {
        /// Where the destination begins.
        host_addr: usize,
    },
    /// The kernel did not report what is mapped.
    #[error("cannot read the process's mappings; is /proc mounted?")]
    Mappings(#[source] io::Error),
    /// The memory is not mapped, against the contract of `GuestMemory`.
    #[error("nothing is mapped at {host_addr:#x}, which should be guest memory")]
    Hole {
        /// The address.
        host_addr: usize,
    },
    /// The kernel refused (`ENOMEM` at the limit of mappings); what was moved was moved back.
    #[error("the kernel refused to move the memory, which is where it was")]
    Refused(#[source] io::Error),
    /// The kernel refused, and then refused to move all of the rest back.
    #[error(
        "the kernel refused to move all of the memory: the first {moved_pages} pages are moved"
    )]
    Stranded {
        /// Pages from the first on that are at their new addresses.
        moved_pages: u32,
        /// Why not all are.
        #[source]
        source: io::Error,
    },
}

/// A part of one VMA, and where it goes.
type Part<'memory> = (Span<'memory>, Span<'memory>);

impl Space {
    /// Moves pages to the addresses of `destination`, whose bytes are lost; what is left at the old
    /// ones is anonymous memory that reads as zeroes. Returns how many mappings were moved.
    /// O(mappings of the process + pieces).
    ///
    /// The caller sees to it that no page of any VM is at the destination, and registers the pages
    /// with `uffd` again, wherever they are: also when the kernel refused to move them.
    ///
    /// # Errors
    ///
    /// When nothing, or not all, was moved. The space has where every page is.
    pub(crate) fn relocate(
        &mut self,
        linear: LinearIndex,
        page_count: u32,
        destination: Arc<dyn GuestMemory>,
        uffd: &Userfaultfd,
    ) -> Result<u64, RemapError> {
        self.relocate_with(linear, page_count, destination, uffd, transfer)
    }

    fn relocate_with(
        &mut self,
        linear: LinearIndex,
        page_count: u32,
        destination: Arc<dyn GuestMemory>,
        uffd: &Userfaultfd,
        transfer: impl FnMut(Span<'_>, Span<'_>) -> io::Result<()>,
    ) -> Result<u64, RemapError> {
        if !self.contains(linear, page_count) {
            return Err(RemapError::NoPages { linear, page_count });
        }
        let host_addr = match destination.regions() {
            [region] if region.page_count == page_count => region.host_addr,
            regions => {
                let found = regions.iter().map(|region| u64::from(region.page_count)).sum();
                let regions = regions.len();
                return Err(RemapError::Destination { expected: page_count, found, regions });
            }
        };
        // SAFETY: just what the region of `destination` covers, which outlives the span.
        let to = unsafe { Span::new(host_addr, page_count) };
        if to.is_locked() {
            return Err(RemapError::Locked { host_addr });
        }
        let mut done = 0;
        while done < page_count {
            let span = self.span(linear.offset(done), page_count - done);
            uffd.unregister(span).map_err(RemapError::Refused)?;
            done += span.page_count();
        }
        let parts = self.parts(linear, to)?;
        let mappings = parts.len() as u64;
        let result = move_all(&parts, transfer);
        let moved_pages = match &result {
            Ok(()) => page_count,
            Err(RemapError::Stranded { moved_pages, .. }) => *moved_pages,
            Err(_) => 0,
        };
        if moved_pages > 0 {
            let memory = destination;
            self.replace(&Piece { linear, page_count: moved_pages, host_addr, memory });
        }
        result.map(|()| mappings)
    }

    /// The pages from `linear` on, cut where a mapping ends, each with its share of `to`.
    fn parts<'memory>(
        &'memory self,
        linear: LinearIndex,
        to: Span<'memory>,
    ) -> Result<Vec<Part<'memory>>, RemapError> {
        let mappings = ProcessMapping::all().map_err(RemapError::Mappings)?;
        let (mut parts, mut done) = (Vec::new(), 0);
        while done < to.page_count() {
            let span = self.span(linear.offset(done), to.page_count() - done);
            let host_addr = span.start();
            let after = mappings.partition_point(|mapping| mapping.range.end <= host_addr);
            let Some(mapping) = mappings.get(after).filter(|it| it.range.contains(&host_addr))
            else {
                return Err(RemapError::Hole { host_addr });
            };
            let byte_count = (mapping.range.end - host_addr).min(span.len_bytes());
            // As many pages as a part of a span has fit the type of their number.
            let page_count = u32::try_from(byte_count / PAGE_SIZE).unwrap_or(span.page_count());
            parts.push((span.part(0, page_count), to.part(done, page_count)));
            done += page_count;
        }
        Ok(parts)
    }
}

/// Carries out each move, or as good as none.
fn move_all(
    parts: &[Part<'_>],
    mut transfer: impl FnMut(Span<'_>, Span<'_>) -> io::Result<()>,
) -> Result<(), RemapError> {
    for (count, &(from, to)) in parts.iter().enumerate() {
        let Err(source) = transfer(from, to) else { continue };
        let moved = &parts[..count];
        let stuck = moved.iter().rposition(|&(from, to)| match transfer(to, from) {
            Ok(()) => false,
            Err(error) => {
                log::error!("cannot move guest memory back to {:#x}: {error}", from.start());
                true
            }
        });
        let Some(stuck) = stuck else { return Err(RemapError::Refused(source)) };
        let moved_pages = moved[..=stuck].iter().map(|(from, _)| from.page_count()).sum();
        return Err(RemapError::Stranded { moved_pages, source });
    }
    Ok(())
}

/// Moves the pages of a part of one VMA and puts anonymous memory in their place.
///
/// # Errors
///
/// The kernel's; the pages are where they were, and what was at `to` is lost.
fn transfer(from: Span<'_>, to: Span<'_>) -> io::Result<()> {
    move_over(from, to)?;
    let Err(error) = from.map_anonymous() else { return Ok(()) };
    // A mapping of the store must not be left where it is not accounted for. It needed no more mappings
    // than there were a moment ago, so this is as good as impossible.
    let (left, result) =
        if move_over(to, from).is_ok() { (to, Err(error.into())) } else { (from, Ok(())) };
    if let Err(error) = left.map_anonymous() {
        log::error!("a mapping that is not used is left at {:#x}: {error}", left.start());
    }
    result
}

#[cfg(test)]
mod tests;
