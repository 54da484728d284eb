//! The kernel's account of huge pages.

use std::fs;
use std::ops::Range;
use std::sync::Arc;

use pagefold_dedup::{AnonymousMemory, GuestMemory};

/// `AnonHugePages` of the mappings in which `memories` are, see `proc_pid_smaps(5)`. Two of them may
/// be one mapping; nothing else is in it, as none but guest memory is marked as it is.
pub(crate) fn bytes_of(memories: &[Arc<AnonymousMemory>]) -> u64 {
    let regions = memories.iter().flat_map(|memory| memory.regions());
    let ranges: Vec<Range<usize>> =
        regions.map(|region| region.host_addr..region.host_addr + region.len_bytes()).collect();
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut kib, mut is_ours) = (0, false);
    for line in smaps.lines() {
        if let Some(mapping) = mapping(line) {
            is_ours =
                ranges.iter().any(|range| range.start < mapping.end && mapping.start < range.end);
        } else if let Some(value) = line.strip_prefix("AnonHugePages:").filter(|_| is_ours) {
            kib += value.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
        }
    }
    kib * 1024
}

/// The addresses, if this line is the first of a mapping.
fn mapping(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    let address = |digits| usize::from_str_radix(digits, 16).ok();
    Some(address(start)?..address(end)?)
}
