//! An allocator that counts.
#![allow(unsafe_code, reason = "an allocator is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static BYTES: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, and how many bytes it has given out.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes of all allocations of the process.
pub(crate) fn allocated_bytes() -> u64 {
    BYTES.load(Ordering::Relaxed) as u64
}

// SAFETY: each call goes to the system's allocator, whose contract is the same.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's obligations are the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's obligations are the callee's.
        unsafe { System.dealloc(block, layout) }
    }
}
