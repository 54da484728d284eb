//! What of the stores is to be compacted.

use serde::{Deserialize, Serialize};

use super::RequestBody;

/// The body of a compact request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompactRequest {
    /// All that can be, and not only what is worth it.
    #[serde(default)]
    pub all: bool,
}

impl RequestBody for CompactRequest {
    const HINT: &'static str = "leave the body out, or send {\"all\": true}";
}
