//! Mapping over guest memory: the one place that replaces the mapping of its pages.
//!
//! The kernel takes the old mapping away before it makes the new one. It looks at the limits (of mappings,
//! of address space) first, so that a refusal for these leaves everything as it was; but if it runs out
//! of memory in between, nothing is mapped there any more. So whenever it refuses, the range is looked
//! at, and a gap is mapped at once: to what was to be mapped, because that is what has the right bytes.
//! They were found equal to the slot's, or zero, or are to be lost.
//!
//! # What cannot be kept out
//!
//! The kernel holds the lock of the address space until the call returns, and not from there to the look at
//! the range. A thread of the program around us that maps memory wherever there is room may be given the gap in
//! these microseconds (the kernel takes the highest gap that is large enough). It is taken for mapped then: the
//! guest and that thread see each other's writes, and a later merge, or the VM's end, maps over the thread's
//! memory. This is on all kernels, and nowhere but where the kernel runs out of memory for a mapping:
//!
//! * Up to Linux 6.11 `mmap_region` (`mm/mmap.c`) unmaps (`do_vmi_munmap`) before it allocates anything, and also
//!   before it accounts for the mapping where `vm.overcommit_memory` is 2. From 6.12 on `__mmap_region` does the
//!   accounting first; what fails after `vms_clean_up_area`, which is `vm_area_alloc` and `vma_iter_prealloc`,
//!   has `vms_abort_munmap_vmas` leave a gap of the whole range. `mremap` to a fixed address unmaps what is
//!   there first in all of them (`mremap_to`).
//! * Both allocate some hundred bytes (`GFP_KERNEL`). The kernel does not refuse these for want of memory: it
//!   kills a process instead, maybe this one. It does refuse them where they do not fit into the control group's
//!   limit and there is no process that it may kill for it (killing may be switched off in version 1), and where
//!   a kernel for tests injects failures.
//!
//! It is not looked for, because nothing could be mended. Most of it could be recognized: what was protected before is
//! registered with the userfaultfd, and a stranger's memory is not (to `PROCMAP_QUERY` it looks like the guest's:
//! private and anonymous). But the address is the other thread's by then, and the guest's bytes are gone.
//! Leaving these pages alone would protect nobody: KVM goes on to show them to the guest, and whoever owns the
//! guest's memory unmaps them with it. All that helps is to end the process. Who must exclude it maps no
//! memory in other threads while the control group has neither room nor a process to kill.
//!
//! Source: `mm/vma.c` and, up to Linux 6.12, `mm/mmap.c`; `mm/mremap.c`; `try_charge_memcg` of `mm/memcontrol.c`.

use std::io;
use std::ops::Range;

use super::backoff::Backoff;
use super::span::Span;
use crate::PAGE_SIZE;

/// What is mapped.
#[derive(Debug, Clone, Copy)]
pub(super) enum Backing {
    /// Fresh anonymous memory, which reads as zeroes.
    Anonymous,
    /// A file's pages from an offset in bytes on.
    File { fd: libc::c_int, offset_bytes: u64 },
}

impl Backing {
    /// What is mapped from page `first` on.
    fn skip_pages(self, first: u32) -> Self {
        match self {
            Self::Anonymous => Self::Anonymous,
            Self::File { fd, offset_bytes } => {
                Self::File { fd, offset_bytes: offset_bytes + u64::from(first) * PAGE_SIZE as u64 }
            }
        }
    }
}

/// Why pages were not all mapped anew. None is left without a mapping.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused a mapping")]
pub(crate) struct MapError {
    /// The kernel's refusal.
    #[source]
    pub(crate) source: io::Error,
    /// The pages that were mapped anew all the same, ascending. The others are as they were.
    pub(crate) replaced: Vec<Range<u32>>,
}

impl From<io::Error> for MapError {
    /// Of a refusal that changed nothing.
    fn from(source: io::Error) -> Self {
        Self { source, replaced: Vec::new() }
    }
}

impl From<MapError> for io::Error {
    fn from(error: MapError) -> Self {
        error.source
    }
}

impl Span<'_> {
    /// Maps fresh anonymous memory, which reads as zeroes, over the pages.
    ///
    /// # Errors
    ///
    /// The kernel's (`ENOMEM` at the limit of mappings). Pages that have lost their mapping have the new one.
    pub(crate) fn map_anonymous(self) -> Result<(), MapError> {
        map_over(self, Backing::Anonymous)
    }

    /// Maps the file's pages from `offset_bytes` on over these, private and writable.
    ///
    /// # Errors
    ///
    /// As for [`map_anonymous`](Self::map_anonymous).
    pub(super) fn map_file(self, fd: libc::c_int, offset_bytes: u64) -> Result<(), MapError> {
        map_over(self, Backing::File { fd, offset_bytes })
    }

    /// Whether every page is mapped, whatever is there.
    pub(super) fn is_mapped(self) -> bool {
        #[cfg(test)]
        if super::gaps::is_in(self) {
            return false;
        }
        // SAFETY: writes nothing: nobody has shared, writable memory of a file here.
        unsafe { libc::msync(self.as_ptr(), self.len_bytes(), libc::MS_ASYNC) == 0 }
    }
}

fn map_over(span: Span<'_>, backing: Backing) -> Result<(), MapError> {
    let Err(source) = map(span, libc::MAP_FIXED, backing) else { return Ok(()) };
    let replaced = fill_gaps(span, backing);
    if replaced.iter().map(Range::len).sum::<usize>() == span.page_count() as usize {
        return Ok(());
    }
    Err(MapError { source, replaced })
}

/// Moves the pages of a part of one mapping to the addresses of another span; an empty mapping of
/// the same kind stays in their place.
///
/// # Errors
///
/// The kernel's; the pages are where they were, and what was at `to` is lost.
pub(super) fn move_over(from: Span<'_>, to: Span<'_>) -> io::Result<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    let len_bytes = from.len_bytes();
    debug_assert_eq!(len_bytes, to.len_bytes());
    #[cfg(test)]
    let injected = faults::strike(to, false);
    #[cfg(not(test))]
    let injected: Option<io::Error> = None;
    let result = injected.map_or_else(
        || {
            // SAFETY: both ranges are pages of a `GuestMemory`, whose contract lets this crate
            // replace their mappings; both stay mapped, readable and writable, and no reference
            // into either exists.
            let addr =
                unsafe { libc::mremap(from.as_ptr(), len_bytes, len_bytes, flags, to.as_ptr()) };
            if addr == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
        },
        Err,
    );
    #[cfg(test)]
    result.as_ref().ok().into_iter().for_each(|()| super::gaps::close(to));
    result.inspect_err(|_| drop(fill_gaps(to, Backing::Anonymous)))
}

/// Maps `backing` to what is not mapped of `span`; returns which pages that were.
pub(super) fn fill_gaps(span: Span<'_>, backing: Backing) -> Vec<Range<u32>> {
    let mut filled = Vec::new();
    fill_within(span, 0..span.page_count(), backing, &mut filled);
    filled
}

fn fill_within(span: Span<'_>, pages: Range<u32>, backing: Backing, filled: &mut Vec<Range<u32>>) {
    let page_count = pages.end - pages.start;
    let part = span.part(pages.start, page_count);
    if part.is_mapped() {
        return;
    }
    let mut backoff = Backoff::new("map them");
    loop {
        match map(part, libc::MAP_FIXED_NOREPLACE, backing.skip_pages(pages.start)) {
            Ok(()) => {
                match filled.last_mut() {
                    Some(last) if last.end == pages.start => last.end = pages.end,
                    _ => filled.push(pages),
                }
                return;
            }
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                if page_count > 1 {
                    let middle = pages.start + page_count / 2;
                    fill_within(span, pages.start..middle, backing, filled);
                    fill_within(span, middle..pages.end, backing, filled);
                }
                return;
            }
            Err(error) => {
                // Only for as long as the kernel has not got a few hundred bytes: there was a mapping
                // here, so the limits allow for one.
                backoff.wait(&error);
            }
        }
    }
}

fn map(span: Span<'_>, how: libc::c_int, backing: Backing) -> io::Result<()> {
    #[cfg(test)]
    if let Some(error) = faults::strike(span, how == libc::MAP_FIXED_NOREPLACE) {
        return Err(error);
    }
    #[cfg(test)]
    let is_gap = how == libc::MAP_FIXED_NOREPLACE && super::gaps::fill(span);
    #[cfg(test)]
    let how = if is_gap { libc::MAP_FIXED } else { how };
    let (flags, fd, offset_bytes) = match backing {
        Backing::Anonymous => (libc::MAP_ANONYMOUS, -1, 0),
        Backing::File { fd, offset_bytes } => (0, fd, offset_bytes.cast_signed()),
    };
    // SAFETY: the range is exactly pages of a `GuestMemory`, whose contract lets this crate replace
    // their mapping; it stays readable and writable, and no reference into it exists.
    let addr = unsafe {
        libc::mmap(
            span.as_ptr(),
            span.len_bytes(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_NORESERVE | how | flags,
            fd,
            offset_bytes,
        )
    };
    if addr == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Failures of the kernel that a test injects.
#[cfg(test)]
pub(crate) mod faults {
    use std::io;
    use std::ops::Range;
    use std::sync::{Mutex, PoisonError};

    use super::super::gaps;
    use super::Span;

    /// A mapping that fails when what was there is gone.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Fault {
        /// Addresses in which it is to be. Tests run side by side, and map from several threads.
        within: Range<usize>,
        /// Mappings before it.
        skip: usize,
        /// How much of what was there goes, in percent.
        gone: usize,
        /// How many attempts to map the gap fail, too.
        refusals: usize,
        /// Whether it has happened.
        is_struck: bool,
    }

    static FAULTS: Mutex<Vec<Fault>> = Mutex::new(Vec::new());

    /// Has a mapping in a range fail, but for the first `skip`, after `gone` percent of what is there
    /// are gone, and `refusals` attempts to mend that fail as well.
    pub(crate) fn inject(within: Range<usize>, skip: usize, gone: usize, refusals: usize) {
        let fault = Fault { within, skip, gone, refusals, is_struck: false };
        FAULTS.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// Removes the faults that have not been injected in a range; returns whether all had been.
    pub(crate) fn clear(within: &Range<usize>) -> bool {
        let mut faults = FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
        faults.extract_if(.., |fault| fault.within == *within).all(|fault| fault.is_struck)
    }

    pub(super) fn strike(span: Span<'_>, is_mending: bool) -> Option<io::Error> {
        let mut faults = FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
        let at = faults.iter().position(|fault| fault.within.contains(&span.start()))?;
        let fault = &mut faults[at];
        if fault.is_struck {
            if !is_mending || fault.refusals == 0 {
                faults.remove(at);
                return None;
            }
            fault.refusals -= 1;
        } else if is_mending {
            return None;
        } else if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        } else {
            fault.is_struck = true;
            let page_count = span.page_count() as usize * fault.gone / 100;
            if page_count > 0 {
                gaps::make(span.part(0, u32::try_from(page_count).unwrap()));
            } else if fault.refusals == 0 {
                faults.remove(at);
            }
        }
        Some(io::Error::from_raw_os_error(libc::ENOMEM))
    }
}

#[cfg(test)]
mod tests;
