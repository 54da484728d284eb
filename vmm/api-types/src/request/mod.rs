//! The bodies of requests, each a JSON object.

mod compact;
mod knobs;
mod number;
mod settle;
mod vm;

use serde::de::DeserializeOwned;

pub use compact::CompactRequest;
pub use knobs::KnobChanges;
pub use settle::{MAX_SETTLE_LIMIT, SettleRequest};
pub use vm::{VmChange, VmFolding};

/// What a request can have as its body.
pub trait RequestBody: DeserializeOwned {
    /// What to send, for whoever has sent something else.
    const HINT: &'static str;
}
