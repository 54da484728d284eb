//! Messages as bytes (postcard: <https://postcard.jamesmunns.com/wire-format>).

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why there is no message, or there are no bytes for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The message cannot be written.
    #[error("a message cannot be encoded")]
    Encode(#[source] postcard::Error),
    /// The bytes are no message of this kind.
    #[error("bytes that are no message")]
    Decode(#[source] postcard::Error),
    /// There is more than one message.
    #[error("{0} bytes after the end of a message")]
    Trailing(usize),
    /// A list in a reply is longer than was requested.
    #[error("an answer with {count} pages where at most {room} were asked for")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there is room for.
        room: usize,
    },
}

/// The bytes of a message. O(bytes).
///
/// # Errors
///
/// When it cannot be written, which no message of this crate's is a reason for.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, MessageError> {
    postcard::to_stdvec(message).map_err(MessageError::Encode)
}

/// The message that bytes are, all of them. O(bytes), and takes no more memory than a few times as many,
/// or some MB if they are few, whatever lengths are in them.
///
/// # Errors
///
/// When they are no such message, or more than one.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(MessageError::Decode)?;
    if rest.is_empty() { Ok(message) } else { Err(MessageError::Trailing(rest.len())) }
}
