//! Anonymous memory of this crate's own, for the time that guest memory takes to change places.

use std::io;
use std::ops::Range;
use std::ptr;

use super::copy::racy_copy;
use super::span::Span;
use crate::PAGE_SIZE;

/// Anonymous memory, untouched when made, to which nothing else refers.
///
/// A page without access on either side keeps the kernel from joining it with what it is
/// moved next to: an untouched mapping that has become one with a touched one is not untouched any more.
#[derive(Debug)]
pub(super) struct Scratch {
    addresses: Range<usize>,
    guards: [usize; 2],
}

impl Scratch {
    /// Reserves `page_count` pages, none of which takes memory, also where the process has all of
    /// its memory populated and locked (`mlockall(MCL_FUTURE)`).
    ///
    /// # Errors
    ///
    /// The kernel's; nothing is mapped.
    pub(super) fn new(page_count: u32) -> io::Result<Self> {
        let len_bytes = page_count as usize * PAGE_SIZE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let addr = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len_bytes + 2 * PAGE_SIZE,
                // What nobody may touch is not populated.
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if addr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = addr as usize + PAGE_SIZE;
        let addresses = start..start + len_bytes;
        let scratch = Self { guards: [addr as usize, addresses.end], addresses };
        let inside = scratch.addresses.start as *mut libc::c_void;
        // SAFETY: inside what was just mapped, to which nothing else refers.
        if unsafe { libc::munlock(inside, len_bytes) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: as before.
        if unsafe { libc::mprotect(inside, len_bytes, access) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(scratch)
    }

    pub(super) fn addresses(&self) -> &Range<usize> {
        &self.addresses
    }

    /// The memory as a span, to be advised and registered like a guest's.
    pub(super) fn span(&self) -> Span<'_> {
        let page_count = u32::try_from(self.addresses.len() / PAGE_SIZE);
        let page_count = page_count.unwrap_or_else(|_| unreachable!("made of a u32 of pages"));
        // SAFETY: the mapping lives as long as `self`, which the span borrows, is readable and
        // writable, and is nobody else's, so that whatever is done to a span may be done to it.
        unsafe { Span::new(self.addresses.start, page_count) }
    }

    /// Gives the first pages memory of their own and fills it with the bytes of `source`, which is
    /// not longer than this, from page `first` on.
    ///
    /// # Errors
    ///
    /// The kernel's (`ENOMEM`); some of the pages may have memory.
    pub(super) fn fill(&self, first: u32, source: Span<'_>) -> io::Result<()> {
        let part = self.span().part(first, source.page_count());
        part.populate_write()?;
        // SAFETY: both are mapped for as many bytes; the source belongs to a `GuestMemory`, to which
        // no reference exists but shared ones to protected pages, and the destination to `self`.
        unsafe {
            racy_copy(source.as_ptr().cast(), part.as_ptr().cast(), source.len_bytes());
        }
        Ok(())
    }

    /// Gives the memory of all pages back; they are untouched afterwards.
    pub(super) fn clear(&self) {
        if let Err(error) = self.span().discard() {
            log::debug!("memory is kept that is not used: {error}");
        }
    }

    /// Maps the first pages at the addresses of `destination` instead, whatever is mapped there, in
    /// one step: who uses them sees one or the other. From there on, they are not this value's any
    /// more.
    ///
    /// # Errors
    ///
    /// The kernel's (`ENOMEM` at the limit of mappings). The scratch memory is as it was; the
    /// destination is, too, or nothing is mapped there any more.
    pub(super) fn move_to(&mut self, destination: Span<'_>) -> io::Result<()> {
        #[cfg(test)]
        faults::before_move(destination)?;
        let source = self.span().part(0, destination.page_count());
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let len_bytes = source.len_bytes();
        // SAFETY: the source is this value's own and to be forgotten; the destination is pages of a
        // `GuestMemory`, whose contract lets this crate replace their mapping; they stay readable
        // and writable, and no reference to them exists.
        let addr = unsafe {
            libc::mremap(source.as_ptr(), len_bytes, len_bytes, flags, destination.as_ptr())
        };
        if addr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.addresses.start += len_bytes;
        #[cfg(test)]
        super::gaps::close(destination);
        Ok(())
    }

    /// Parts with all but the `page_count` pages from page `first` on.
    pub(super) fn keep(&mut self, first: u32, page_count: u32) {
        let kept = self.span().part(first, page_count);
        let kept = kept.start()..kept.start() + kept.len_bytes();
        let Range { start, end } = std::mem::replace(&mut self.addresses, kept.clone());
        unmap(start..kept.start);
        unmap(kept.end..end);
    }
}

/// Unmaps what is a scratch's and is forgotten by it.
fn unmap(addresses: Range<usize>) {
    if addresses.is_empty() {
        return;
    }
    // SAFETY: a part of what `Scratch::new` mapped that has not been moved away; no borrow of it is
    // left, as a span borrows its scratch.
    unsafe { libc::munmap(addresses.start as *mut libc::c_void, addresses.len()) };
}

impl Drop for Scratch {
    fn drop(&mut self) {
        unmap(self.addresses.clone());
        for guard in self.guards {
            unmap(guard..guard + PAGE_SIZE);
        }
    }
}

/// Failures of the kernel that a test injects, once each or always.
#[cfg(test)]
pub(crate) mod faults {
    use std::cell::Cell;

    use super::super::gaps;
    use super::{Span, io};

    /// What the next move of scratch memory comes to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in crate::sys) enum Fault {
        /// It is refused before anything has changed.
        Early,
        /// It is refused when the old mapping is gone.
        Late,
        /// It is done, but the pages are not moved there.
        Pages,
    }

    thread_local! {
        static NEXT: Cell<Option<Fault>> = const { Cell::new(None) };
        static ARE_ALL_REFUSED: Cell<bool> = const { Cell::new(false) };
    }

    /// Has every move of this thread be refused from now on before anything has changed, or not.
    pub(crate) fn refuse_all(are_refused: bool) {
        ARE_ALL_REFUSED.set(are_refused);
    }

    pub(in crate::sys) fn inject(fault: Fault) {
        NEXT.set(Some(fault));
    }

    /// Whether this fault is the next one, which it is no more.
    pub(in crate::sys) fn take(fault: Fault) -> bool {
        NEXT.get() == Some(fault) && NEXT.replace(None).is_some()
    }

    pub(super) fn before_move(destination: Span<'_>) -> io::Result<()> {
        if take(Fault::Late) {
            gaps::make(destination);
        } else if !take(Fault::Early) && !ARE_ALL_REFUSED.get() {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::ENOMEM))
    }
}
