//! Gaps in guest memory that tests make: addresses that count as not mapped.
//!
//! Really unmapped, they could be given to another thread of the test program, which has nothing to do
//! with this. So they are mapped to memory without access, and listed as gaps.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::span::Span;

static GAPS: Mutex<Vec<Range<usize>>> = Mutex::new(Vec::new());

/// Takes the mapping of pages away.
pub(super) fn make(span: Span<'_>) {
    // SAFETY: as for a mapping that was to replace that of these pages: they are to be mapped again
    // before anything may depend on them.
    let addr = unsafe {
        libc::mmap(
            span.as_ptr(),
            span.len_bytes(),
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    assert_ne!(addr, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    gaps().push(addresses(span));
}

/// Whether any of the pages is not mapped.
pub(super) fn is_in(span: Span<'_>) -> bool {
    let pages = addresses(span);
    gaps().iter().any(|gap| gap.start < pages.end && pages.start < gap.end)
}

/// Whether none of the pages is mapped; they are about to be.
pub(super) fn fill(span: Span<'_>) -> bool {
    let pages = addresses(span);
    let is_gap = gaps().iter().any(|gap| gap.start <= pages.start && pages.end <= gap.end);
    if is_gap {
        close(span);
    }
    is_gap
}

/// Notes that pages are mapped.
pub(super) fn close(span: Span<'_>) {
    let pages = addresses(span);
    let mut gaps = gaps();
    let left = |gap: Range<usize>| {
        [gap.start..gap.end.min(pages.start), gap.start.max(pages.end)..gap.end]
    };
    let all: Vec<Range<usize>> =
        gaps.drain(..).flat_map(left).filter(|it| !it.is_empty()).collect();
    *gaps = all;
}

fn addresses(span: Span<'_>) -> Range<usize> {
    span.start()..span.start() + span.len_bytes()
}

fn gaps() -> MutexGuard<'static, Vec<Range<usize>>> {
    GAPS.lock().unwrap_or_else(PoisonError::into_inner)
}
