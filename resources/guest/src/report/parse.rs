//! Reading a line back.

use super::{Corruption, MAX_LINE_BYTES, Report, Tally};
use crate::PAGE_BYTES;
use crate::pattern::ContentKind;

impl<'a> Report<'a> {
    /// Parses one line, given without its `\n`; one trailing `\r` is ignored.
    ///
    /// Total: whatever the bytes are, the answer is a report, [`Report::Unknown`] for anything that
    /// the guest's own `Display` does not print.
    pub fn parse(line: &'a [u8]) -> Self {
        if line.len() > MAX_LINE_BYTES {
            return Self::Unknown;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return Self::Unknown;
        }
        core::str::from_utf8(line).ok().and_then(parse_text).unwrap_or(Self::Unknown)
    }
}

fn parse_text(line: &str) -> Option<Report<'_>> {
    let (word, rest) = line.split_once(' ')?;
    if word == "PANIC" {
        return Some(Report::Panic(rest));
    }
    let mut fields = rest.split(' ');
    let report = match word {
        "READY" => Report::Ready { pages: u32::try_from(decimal(&mut fields, "pages=")?).ok()? },
        "BEAT" => Report::Beat(tally(&mut fields)?),
        "REST" => Report::Rest(tally(&mut fields)?),
        "DONE" => Report::Done(tally(&mut fields)?),
        "CORRUPT" => Report::Corrupt(corruption(&mut fields)?),
        _ => return None,
    };
    fields.next().is_none().then_some(report)
}

type Fields<'a> = core::str::Split<'a, char>;

fn tally(fields: &mut Fields<'_>) -> Option<Tally> {
    Some(Tally {
        writes: decimal(fields, "writes=")?,
        verifications: decimal(fields, "verifications=")?,
        corrupt: decimal(fields, "corrupt=")?,
    })
}

fn corruption(fields: &mut Fields<'_>) -> Option<Corruption> {
    Some(Corruption {
        page: u32::try_from(decimal(fields, "page=")?).ok()?,
        offset: u16::try_from(decimal(fields, "offset=")?)
            .ok()
            .filter(|offset| u64::from(*offset) < PAGE_BYTES)?,
        want: byte(fields, "want=")?,
        got: byte(fields, "got=")?,
        gpa: number(field(fields, "gpa=0x")?, 16)?,
        kind: ContentKind::from_name(field(fields, "kind=")?)?,
        version: u32::try_from(decimal(fields, "version=")?).ok()?,
    })
}

fn field<'a>(fields: &mut Fields<'a>, prefix: &str) -> Option<&'a str> {
    fields.next()?.strip_prefix(prefix)
}

fn decimal(fields: &mut Fields<'_>, prefix: &str) -> Option<u64> {
    number(field(fields, prefix)?, 10)
}

fn byte(fields: &mut Fields<'_>, prefix: &str) -> Option<u8> {
    let digits = field(fields, prefix)?;
    if digits.len() != 2 || !digits.bytes().all(is_lower_hex) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// A number without sign, leading zeroes or capital digits.
fn number(digits: &str, radix: u32) -> Option<u64> {
    if digits.len() > 1 && digits.starts_with('0') || !digits.bytes().all(is_lower_hex) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}
