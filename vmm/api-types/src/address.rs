//! Guest-physical addresses as people write them.

use std::fmt;
use std::str::FromStr;

use pagefold_dedup::parse_number;
use serde::{Deserialize, Serialize, Serializer};

/// A guest-physical address, written as any number is ([`parse_number`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct GuestPhys(pub u64);

/// Text that is no guest-physical address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a guest-physical address is below 2^64: decimal, hexadecimal with 0x, or in K, M or G, as in \
     0x100000 or 1M"
)]
pub struct GuestPhysError;

/// As JSON has it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a guest-physical address: a number, or text such as \"0x100000\"")]
enum Written {
    Number(u64),
    Text(String),
}

impl FromStr for GuestPhys {
    type Err = GuestPhysError;

    fn from_str(text: &str) -> Result<Self, GuestPhysError> {
        parse_number(text).map(Self).map_err(|_| GuestPhysError)
    }
}

impl TryFrom<Written> for GuestPhys {
    type Error = GuestPhysError;

    fn try_from(written: Written) -> Result<Self, GuestPhysError> {
        match written {
            Written::Number(number) => Ok(Self(number)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl Serialize for GuestPhys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for GuestPhys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for (text, address) in [
            ("0", 0),
            ("4096", 4096),
            ("0x1000", 4096),
            ("0XfF", 255),
            ("1M", 1 << 20),
            ("0xffffffffffffffff", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(GuestPhys(address)), "{text}");
        }
        assert_eq!(GuestPhys(4096).to_string().parse(), Ok(GuestPhys(4096)));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "0x", "+1", "-1", "0x-1", "0x+1", "ff", " 1", "1 ", "0x10000000000000000", "1e3"]
        {
            assert_eq!(text.parse::<GuestPhys>(), Err(GuestPhysError), "{text}");
        }
    }
}
