//! Sizes of memory, as they are typed and as they are shown.

use std::fmt;
use std::str::FromStr;

use pagefold_dedup::{NumberError, parse_number};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) u64);

/// A size that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SizeError {
    #[error(transparent)]
    Number(#[from] NumberError),
    #[error("a size must be a whole number of 4096-byte pages, as 64M or 4K is")]
    NotPages,
    #[error("a size must not be zero")]
    Zero,
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let bytes = parse_number(text)?;
        if bytes == 0 {
            return Err(SizeError::Zero);
        }
        if !bytes.is_multiple_of(pagefold_dedup::PAGE_SIZE as u64) {
            return Err(SizeError::NotPages);
        }
        Ok(Self(bytes))
    }
}

/// As it is typed: in the largest unit that needs no fraction.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, unit) = [(30, "G"), (20, "M"), (10, "K")]
            .into_iter()
            .find(|(shift, _)| self.0.trailing_zeros() >= *shift)
            .unwrap_or((0, ""));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

/// Bytes for people: MiB with one digit, or `?` for what is not known.
pub(super) fn mib(bytes: Option<u64>) -> String {
    bytes.map_or_else(
        || "?".to_owned(),
        |bytes| {
            // In tenths, rounded, without a float's loss: for petabytes it still is exact.
            let tenths = (u128::from(bytes) * 10 + (1 << 19)) >> 20;
            format!("{}.{} MiB", tenths / 10, tenths % 10)
        },
    )
}

/// The same of a balance, which may be a loss. What is shown as zero has no sign.
pub(super) fn signed_mib(bytes: i64) -> String {
    let size = mib(Some(bytes.unsigned_abs()));
    if bytes < 0 && size != mib(Some(0)) { format!("-{size}") } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_binary() {
        for (text, bytes) in [
            ("64M", 64 << 20),
            ("1G", 1 << 30),
            ("1024K", 1 << 20),
            ("4k", 4096),
            ("4096", 4096),
            ("2GiB", 2 << 30),
            ("3.5G", 7 << 29),
            ("0x400000", 4 << 20),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn a_size_that_cannot_be_read_says_what_is_allowed() {
        for (text, part) in [
            ("", "64M, 1G or 1024K"),
            ("64MB", "64M, 1G or 1024K"),
            ("-1M", "64M, 1G or 1024K"),
            ("0", "zero"),
            ("5K", "4096-byte pages"),
            ("1.1K", "not a whole number"),
            ("18446744073709551615G", "too large"),
        ] {
            let error = text.parse::<Size>().expect_err("refused").to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_size_displays_as_it_is_typed() {
        for text in ["64M", "1G", "1028K", "3G"] {
            assert_eq!(text.parse::<Size>().expect("a size").to_string(), text);
        }
    }

    #[test]
    fn bytes_are_shown_rounded_and_the_unknown_as_unknown() {
        assert_eq!(mib(Some(64 << 20)), "64.0 MiB");
        assert_eq!(mib(Some((1 << 20) - 1)), "1.0 MiB");
        assert_eq!(mib(Some(52_429)), "0.1 MiB");
        assert_eq!(mib(None), "?");
        for (bytes, text) in [(-1, "0.0 MiB"), (-(3 << 20), "-3.0 MiB"), (1 << 20, "1.0 MiB")] {
            assert_eq!(signed_mib(bytes), text);
        }
        assert!(mib(Some(u64::MAX)).ends_with(" MiB"));
    }
}
