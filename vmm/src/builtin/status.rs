//! What the built-in guest has reported, for people and programs.

use serde::{Deserialize, Serialize};

/// What the built-in guest has reported. What is not known is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltinStatus {
    /// Whether the guest, commanded to rest, has reported that every page holds its resting content.
    pub resting: bool,
    /// Pages its guest has written since it was ready, by its last report.
    pub writes: Option<u64>,
    /// Pages its guest has verified, by its last report.
    pub verifications: Option<u64>,
    /// Pages its guest has found wrong, by its last report: not known before the guest's first tally.
    pub corrupt: Option<u64>,
    /// The first such findings, as the guest printed them.
    pub corrupt_lines: Vec<String>,
    /// What the guest printed when it gave up.
    pub panic: Option<String>,
}
