//! Numbers in JSON: as such, or as text with what a command line takes.

use pagefold_dedup::parse_number;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(untagged, expecting = "a number, or text such as \"1M\" or \"0x10\"")]
enum Written {
    Number(u64),
    Text(String),
}

/// Reads a number.
///
/// # Errors
///
/// What is none, or does not fit.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match Written::deserialize(deserializer)? {
        Written::Number(number) => Ok(number),
        Written::Text(text) => parse_number(&text).map_err(D::Error::custom),
    }
}

/// Reads a number that need not be there.
///
/// # Errors
///
/// As for [`number`].
pub(super) fn optional_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Number(#[serde(deserialize_with = "number")] u64);

    Ok(Option::deserialize(deserializer)?.map(|Number(number)| number))
}
