//! The body of a request to settle.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RequestBody;
use super::number::number;

/// The longest time limit of a settle request.
pub const MAX_SETTLE_LIMIT: Duration = Duration::from_mins(10);

/// The time limit of a request that names none.
const DEFAULT_TIMEOUT_MS: u64 = 30_000;

/// The body of a settle request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettleRequest {
    /// How long the answer may take, in milliseconds; in JSON a number, or text that is read as that of a knob is.
    #[serde(default = "default_timeout_ms", deserialize_with = "number")]
    pub timeout_ms: u64,
}

impl RequestBody for SettleRequest {
    const HINT: &'static str = "leave the body out, or send {\"timeout_ms\": 30000}";
}

impl SettleRequest {
    /// The time limit; `None` if it is longer than [`MAX_SETTLE_LIMIT`].
    pub fn limit(self) -> Option<Duration> {
        let limit = Duration::from_millis(self.timeout_ms);
        (limit <= MAX_SETTLE_LIMIT).then_some(limit)
    }
}

impl Default for SettleRequest {
    fn default() -> Self {
        Self { timeout_ms: DEFAULT_TIMEOUT_MS }
    }
}

fn default_timeout_ms() -> u64 {
    DEFAULT_TIMEOUT_MS
}
