//! Which memory is locked: mlock(2), mlockall(2).

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bounds::MappingBounds;
use super::maps::ProcessMapping;
use super::span::Span;
use super::status::status_bytes;
use crate::PAGE_SIZE;

impl Span<'_> {
    /// Whether any of its mappings is locked. O(mappings of the span).
    pub(crate) fn is_locked(self) -> bool {
        is_locked(self.as_ptr(), self.len_bytes())
    }

    /// The runs of locked pages, ascending, by their numbers in the span. O(mappings of the span) with `bounds`, or
    /// if none is locked, and O(mappings of the process) otherwise.
    pub(crate) fn locked_runs(self, bounds: Option<&MappingBounds>) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        if !self.is_locked() {
            return runs;
        }
        let all = match bounds {
            Some(_) => Vec::new(),
            None => ProcessMapping::all().unwrap_or_default(),
        };
        let mapping_end = |addr: usize| {
            let Some(bounds) = bounds else {
                let mapping = all.get(all.partition_point(|mapping| mapping.range.end <= addr))?;
                return mapping.range.contains(&addr).then_some(mapping.range.end);
            };
            bounds.at(addr).ok().map(|mapping| mapping.end)
        };
        let (mut next, end) = (0, self.page_count());
        while next < end {
            let rest = self.part(next, end - next);
            // Page by page where the end of the mapping is not known.
            let bytes = mapping_end(rest.start()).map_or(PAGE_SIZE, |end| end - rest.start());
            // As many pages as a part of a span has fit the type of their number.
            let page_count = u32::try_from(bytes / PAGE_SIZE).unwrap_or(u32::MAX);
            let page_count = page_count.min(rest.page_count());
            let after = next + page_count;
            if rest.part(0, page_count).is_locked() {
                match runs.last_mut() {
                    Some(last) if last.end == next => last.end = after,
                    _ => runs.push(next..after),
                }
            }
            next = after;
        }
        runs
    }

    /// Locks its memory: all of it with `is_whole`, and otherwise what is there now, and the rest
    /// when it is first used. O(pages).
    ///
    /// # Errors
    ///
    /// The kernel's (`ENOMEM` or `EAGAIN` beyond `RLIMIT_MEMLOCK`); some of it may be locked.
    ///
    /// Source: `mlock2(2)`.
    pub(crate) fn lock(self, is_whole: bool) -> io::Result<()> {
        let flags = if is_whole { 0 } else { libc::MLOCK_ONFAULT };
        // SAFETY: changes no byte and no reference to one; the addresses are the span's.
        let result = unsafe { libc::mlock2(self.as_ptr(), self.len_bytes(), flags) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Whether the process locks whatever it maps from now on.
///
/// # Errors
///
/// The kernel's, when it does not let a page be mapped to find out.
pub(crate) fn locks_new_mappings() -> io::Result<bool> {
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists. Nobody
    // may touch it, so that it is not populated.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            PAGE_SIZE,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        let error = io::Error::last_os_error();
        // Nothing more can be locked, so that nothing can be mapped.
        return if error.raw_os_error() == Some(libc::EAGAIN) { Ok(true) } else { Err(error) };
    }
    let is_locked = is_locked(page, PAGE_SIZE);
    // SAFETY: just what was mapped, to which nothing else refers.
    unsafe { libc::munmap(page, PAGE_SIZE) };
    Ok(is_locked)
}

/// What was [noted](note_locked_bytes) last.
static LOCKED_BYTES: AtomicU64 = AtomicU64::new(UNKNOWN);

const UNKNOWN: u64 = u64::MAX;

/// Asks how much memory the process has locked, for all VMs at once: that takes as long as visiting an idle VM.
pub(crate) fn note_locked_bytes() {
    LOCKED_BYTES.store(read_locked_bytes().unwrap_or(UNKNOWN), Ordering::Relaxed);
}

/// Bytes of memory that the process had locked when that was last read, if `/proc` reported it.
pub(crate) fn locked_bytes() -> Option<u64> {
    Some(LOCKED_BYTES.load(Ordering::Relaxed)).filter(|&bytes| bytes != UNKNOWN)
}

fn read_locked_bytes() -> io::Result<u64> {
    status_bytes("VmLck:")?.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Whether any mapping in a range of addresses is locked, by msync(2), which refuses to invalidate such.
pub(super) fn is_locked(addr: *mut libc::c_void, len_bytes: usize) -> bool {
    // SAFETY: changes nothing: there is nothing to invalidate in Linux, and writes are begun by
    // MS_SYNC only.
    let result = unsafe { libc::msync(addr, len_bytes, libc::MS_ASYNC | libc::MS_INVALIDATE) };
    result != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EBUSY)
}
