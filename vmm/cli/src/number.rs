//! Numbers on the command line, all written alike.

use pagefold_dedup::parse_number;

/// A number of 64 bits.
pub(super) fn large(text: &str) -> Result<u64, String> {
    parse_number(text).map_err(|error| error.to_string())
}

/// A number of 32 bits.
pub(super) fn small(text: &str) -> Result<u32, String> {
    let number = large(text)?;
    u32::try_from(number).map_err(|_| format!("{text} is not in 0..={}", u32::MAX))
}

/// A number of VMs for one process.
pub(super) fn count_vms(text: &str) -> Result<u32, String> {
    let count = small(text)?;
    if (1..=4096).contains(&count) { Ok(count) } else { Err(format!("{text} is not in 1..=4096")) }
}
