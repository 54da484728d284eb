//! The guest's memory above its image: the workload's table and the heap.

use core::ptr::with_exposed_provenance_mut;
use core::slice::from_raw_parts_mut;
use core::sync::atomic::{AtomicBool, Ordering};

use pagefold_guest::layout::{Heap, TABLE_GPA};
use pagefold_guest::pattern::PageWords;

/// All memory above the image. There is one.
pub(crate) struct Memory {
    heap: Heap,
}

static CLAIMED: AtomicBool = AtomicBool::new(false);

impl Memory {
    /// Takes the memory above the image, `None` if it was taken before.
    ///
    /// `heap` must be what `layout::heap` returns for the size in the parameter page: the VM has that
    /// much memory, or the VMM has broken its word, and the first access ends the guest.
    pub(crate) fn claim(heap: Heap) -> Option<Self> {
        let was_claimed = CLAIMED.swap(true, Ordering::Relaxed);
        (!was_claimed).then_some(Self { heap })
    }

    /// The workload's table: for each heap page its tag and its version.
    pub(crate) fn tables(&mut self) -> (&mut [u32], &mut [u32]) {
        let pages = self.heap.pages as usize;
        let base = with_exposed_provenance_mut::<u32>(address(TABLE_GPA));
        // SAFETY: memory is mapped at its own address from the table's start on for 8 bytes for each
        // heap page (`layout::heap`), it was zero when the VM started, image, stack and heap lie
        // elsewhere, and `&mut self` of the only `Memory` makes this the only reference to it.
        let table = unsafe { from_raw_parts_mut(base, pages * 2) };
        table.split_at_mut(pages)
    }

    /// How many heap pages there are.
    pub(crate) fn page_count(&self) -> u32 {
        self.heap.pages
    }

    /// Guest-physical address of a heap page.
    pub(crate) fn gpa_of(&self, index: u32) -> u64 {
        self.heap.gpa_of(index)
    }

    /// A heap page.
    ///
    /// # Panics
    /// If there is no such page.
    pub(crate) fn page(&mut self, index: u32) -> &mut PageWords {
        assert!(index < self.heap.pages, "heap page {index}");
        let page = with_exposed_provenance_mut::<PageWords>(address(self.heap.gpa_of(index)));
        // The compiler must not carry over what it knows of the page's bytes from the last time:
        // whether memory still holds them is the question.
        let page = core::hint::black_box(page);
        // SAFETY: heap pages are aligned, mapped at their own address and hold plain integers; the
        // page is one of them (asserted); `&mut self` of the only `Memory` makes this the only
        // reference to it.
        unsafe { &mut *page }
    }
}

/// A guest-physical address as a pointer's address: memory is mapped one to one.
fn address(gpa: u64) -> usize {
    usize::try_from(gpa).unwrap_or(usize::MAX)
}
