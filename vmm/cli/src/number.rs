//! Numbers on the command line, all written alike.

use std::ops::RangeInclusive;

use pagefold_dedup::parse_number;

/// A number of 64 bits.
pub(super) fn large(text: &str) -> Result<u64, String> {
    parse_number(text).map_err(|error| error.to_string())
}

/// A number of 32 bits.
pub(super) fn small(text: &str) -> Result<u32, String> {
    within(text, 0..=u32::MAX)
}

/// A number of VMs for one process.
pub(super) fn vm_count(text: &str) -> Result<u32, String> {
    within(text, 1..=4096)
}

fn within(text: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    let number = u32::try_from(large(text)?).ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("{text} is not in {}..={}", range.start(), range.end()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failure is a panic")]
mod tests {
    use super::{small, vm_count};

    #[test]
    fn a_number_that_is_too_large_for_any_is_out_of_the_range_that_is_asked_for() {
        for text in ["0", "4097", "99999999999"] {
            assert_eq!(vm_count(text).unwrap_err(), format!("{text} is not in 1..=4096"));
        }
        assert_eq!((vm_count("0x1000"), small("0")), (Ok(4096), Ok(0)));
        assert_eq!(small("4294967296").unwrap_err(), "4294967296 is not in 0..=4294967295");
    }
}
