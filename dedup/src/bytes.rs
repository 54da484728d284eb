//! Bytes in messages: written at once, and never longer than what was sent.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[cfg(any(test, feature = "internals"))]
use crate::PAGE_SIZE;

/// Bytes of which there may be any number.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// The bytes of a page.
#[cfg(any(test, feature = "internals"))]
#[derive(Clone, PartialEq, Eq)]
pub struct Page(pub Box<[u8; PAGE_SIZE]>);

// What is in a guest's memory is nothing for a log.
impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.0.len())
    }
}

#[cfg(any(test, feature = "internals"))]
impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Page(..)")
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(AnyBytes).map(Self)
    }
}

#[cfg(any(test, feature = "internals"))]
impl Serialize for Page {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_array(&self.0, serializer)
    }
}

#[cfg(any(test, feature = "internals"))]
impl<'de> Deserialize<'de> for Page {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_boxed(deserializer).map(Self)
    }
}

/// Writes so many bytes.
pub(crate) fn serialize_array<const N: usize, S: Serializer>(
    bytes: &[u8; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// Reads just as many bytes.
pub(crate) fn deserialize_array<'de, const N: usize, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<[u8; N], D::Error> {
    deserialize_boxed(deserializer).map(|bytes| *bytes)
}

fn deserialize_boxed<'de, const N: usize, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Box<[u8; N]>, D::Error> {
    let Bytes(bytes) = Bytes::deserialize(deserializer)?;
    let bytes: Result<Box<[u8; N]>, _> = bytes.into_boxed_slice().try_into();
    bytes.map_err(|bytes| D::Error::invalid_length(bytes.len(), &format!("{N} bytes").as_str()))
}

/// Takes bytes in whatever way a format has them.
struct AnyBytes;

impl<'de> Visitor<'de> for AnyBytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
        Ok(bytes)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        // The length that is announced may be any number: nothing is reserved for it.
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_length_is_none() {
        let json = |len| serde_json::to_string(&Bytes(vec![7; len])).unwrap();
        assert_eq!(
            serde_json::from_str::<Page>(&json(PAGE_SIZE)).unwrap(),
            Page([7; PAGE_SIZE].into())
        );
        for len in [0, PAGE_SIZE - 1, PAGE_SIZE + 1] {
            let refused = serde_json::from_str::<Page>(&json(len)).unwrap_err().to_string();
            assert!(refused.contains("expected 4096 bytes"), "{refused}");
        }
    }

    #[test]
    fn no_byte_of_a_guest_is_in_a_log() {
        let text = format!("{:?} {:?}", Bytes(vec![123; 3]), Page([123; PAGE_SIZE].into()));
        assert_eq!(text, "Bytes(3) Page(..)");
    }
}
