//! Which addresses are memory, as a kernel is passed the map of them.

use std::ops::Range;

use crate::memory::MemoryLayout;
use crate::pc::layout::{ACPI_TABLES, HIGH_MEMORY_START, LOW_MEMORY_END};

/// Memory, as e820 has it; and PVH, too.
pub(super) const RAM: u32 = 1;
/// Memory that is not to be used.
pub(super) const RESERVED: u32 = 2;

/// Ranges of addresses with what they are, ascending.
pub(super) fn memory_map(layout: MemoryLayout) -> Vec<(Range<u64>, u32)> {
    let below = (0..LOW_MEMORY_END, RAM);
    let tables = (ACPI_TABLES, RESERVED);
    let above = layout.ranges().map(|range| {
        // The lowest megabyte is described above.
        (range.start.max(HIGH_MEMORY_START)..range.end, RAM)
    });
    [below, tables].into_iter().chain(above.filter(|(range, _)| !range.is_empty())).collect()
}

/// The first address above the memory below the hole.
pub(super) fn low_memory_end(layout: MemoryLayout) -> u64 {
    layout.ranges().next().map_or(0, |range| range.end)
}
