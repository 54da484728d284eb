//! What an engine is told, and what it finds out about the host.

use std::io;

use crate::PAGE_SIZE;
use crate::knobs::Knobs;

/// How an engine is set up. The defaults fit the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineConfig {
    /// Threads that read and hash pages; by default one a processor.
    pub count_threads: Option<usize>,
    /// Pages that one domain's store may hold; by default twice the host's memory, so that
    /// numbers can rest before they are used again. Costs address space, not memory.
    pub store_pages: Option<u32>,
    /// Mappings that all guests together may use; by default what `vm.max_map_count` leaves.
    pub max_mappings: Option<u64>,
    /// What [`Engine::set_knobs`](super::Engine::set_knobs) changes later.
    pub knobs: Knobs,
}

/// Twice the host's memory, in pages.
///
/// # Errors
///
/// When `/proc` does not say.
pub(super) fn default_store_pages() -> io::Result<u32> {
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let total_kib: Option<u64> = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|value| value.split_ascii_whitespace().next()?.parse().ok());
    let total_kib = total_kib.ok_or_else(|| io::Error::other("no MemTotal in /proc/meminfo"))?;
    Ok(u32::try_from(2 * total_kib * 1024 / PAGE_SIZE as u64).unwrap_or(u32::MAX - 1))
}
