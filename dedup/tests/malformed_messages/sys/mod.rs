//! An allocator that knows the most that was in use.
#![allow(unsafe_code, reason = "an allocator is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, and how many bytes it has given out.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Forgets the most that was in use; returns what is.
pub(crate) fn reset_peak() -> usize {
    let bytes = BYTES.load(Ordering::Relaxed);
    PEAK.store(bytes, Ordering::Relaxed);
    bytes
}

/// The most bytes that were in use at a time since then.
pub(crate) fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}

// SAFETY: each call goes to the system's allocator, whose contract is the same.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(bytes, Ordering::Relaxed);
        // SAFETY: the caller's obligations are the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's obligations are the callee's.
        unsafe { System.dealloc(block, layout) }
    }
}
