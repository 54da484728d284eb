//! Numbers as people write them: one form for every size, address, count and knob.

/// Text that is no number, with what is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// It has another form.
    #[error(
        "a number is decimal or, with 0x, hexadecimal, and may end in K, M, G or T, which are binary \
         (1K is 1024), as in 64M, 1G or 1024K, 3.5G or 0x100000"
    )]
    Form,
    /// It ends in a decimal unit, which is easily taken for a binary one.
    #[error(
        "{0} would be decimal (1KB is 1000 bytes), and is not taken; K, M, G and T, or KiB, MiB, GiB \
         and TiB, are binary, as in 64M, 1G or 1024K"
    )]
    DecimalUnit(String),
    /// It has a fraction that its unit does not divide into whole numbers.
    #[error("{0} is not a whole number")]
    Fraction(String),
    /// It is 2⁶⁴ or more.
    #[error("{0} is too large")]
    TooLarge(String),
}

/// Reads a number: decimal, with a fraction if a unit makes it whole, or hexadecimal with `0x`; K, M, G
/// and T, or KiB, MiB, GiB and TiB, are binary units.
///
/// # Errors
///
/// When it has no such form, or does not fit into 64 bits.
pub fn parse_number(text: &str) -> Result<u64, NumberError> {
    let too_large = || NumberError::TooLarge(text.to_owned());
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    if let Some(digits) = hexadecimal {
        let (digits, shift) = split_unit(digits, |digit| digit.is_ascii_hexdigit())?;
        let number = digits_of(digits, 16).ok_or_else(too_large)?;
        return shifted(number, shift).ok_or_else(too_large);
    }
    let (digits, shift) = split_unit(text, |digit| digit.is_ascii_digit() || digit == '.')?;
    let Some((whole, fraction)) = digits.split_once('.') else {
        let number = digits_of(digits, 10).ok_or_else(too_large)?;
        return shifted(number, shift).ok_or_else(too_large);
    };
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|one| one.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return Err(NumberError::Form);
    }
    let whole =
        digits_of(whole, 10).and_then(|whole| shifted(whole, shift)).ok_or_else(too_large)?;
    let fraction = fraction.trim_end_matches('0');
    // More digits than a unit has powers of two make nothing whole.
    let is_short = u32::try_from(fraction.len()).is_ok_and(|len| len <= shift && len < 20);
    if !is_short {
        return Err(NumberError::Fraction(text.to_owned()));
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().unwrap_or(0) };
    let part = part << shift;
    if !part.is_multiple_of(scale) {
        return Err(NumberError::Fraction(text.to_owned()));
    }
    let part = u64::try_from(part / scale).map_err(|_| too_large())?;
    whole.checked_add(part).ok_or_else(too_large)
}

/// The digits, of which there are some, and by how many bits the unit after them shifts.
fn split_unit(text: &str, is_digit: impl Fn(char) -> bool) -> Result<(&str, u32), NumberError> {
    let end = text.find(|letter| !is_digit(letter)).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(NumberError::Form);
    }
    let shift = match unit {
        "" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        "T" | "t" | "TiB" => 40,
        "KB" | "kB" | "kb" | "MB" | "mb" | "GB" | "gb" | "TB" | "tb" => {
            return Err(NumberError::DecimalUnit(unit.to_owned()));
        }
        _ => return Err(NumberError::Form),
    };
    Ok((digits, shift))
}

/// `None` if it is too large.
fn digits_of(digits: &str, radix: u32) -> Option<u64> {
    u64::from_str_radix(digits, radix).ok()
}

fn shifted(number: u64, shift: u32) -> Option<u64> {
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, number) in [
            ("0", 0),
            ("4096", 4096),
            ("64M", 64 << 20),
            ("1G", 1 << 30),
            ("1024K", 1 << 20),
            ("4k", 4096),
            ("2GiB", 2 << 30),
            ("1T", 1 << 40),
            ("3.5G", 7 << 29),
            ("0.5K", 512),
            ("1.0", 1),
            ("0x1000", 4096),
            ("0XfF", 255),
            ("0x10K", 16 << 10),
            ("0xffffffffffffffff", u64::MAX),
        ] {
            assert_eq!(parse_number(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused_with_the_reason() {
        let long = format!("0.{}1K", "0".repeat(400));
        for text in [
            "", "M", "64 M", "-1M", "+1M", "0x", "0x+1", "64M4", "١K", ".5G", "1.G", "1..5G", "1e3",
        ] {
            assert_eq!(parse_number(text), Err(NumberError::Form), "{text}");
        }
        assert_eq!(parse_number("64MB"), Err(NumberError::DecimalUnit("MB".to_owned())));
        for text in ["1.5", "0.3K", &long] {
            assert_eq!(parse_number(text), Err(NumberError::Fraction(text.to_owned())), "{text}");
        }
        for text in ["99999999999999999999", "18446744073709551615G", "0x10000000000000000"] {
            assert_eq!(parse_number(text), Err(NumberError::TooLarge(text.to_owned())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_number_is_read_back(text in "\\PC*", number: u64) {
            let _ = parse_number(&text);
            prop_assert_eq!(parse_number(&number.to_string()), Ok(number));
            prop_assert_eq!(parse_number(&format!("{number:#x}")), Ok(number));
        }
    }
}
