//! What every answer has in its body that is not a success.

use pagefold_dedup::SettleReport;
use serde::{Deserialize, Serialize};

/// The body of every answer that is not a success: what was wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The same for every error of a kind, for programs; not all have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ErrorKind>,
    /// What was wrong.
    pub error: String,
    /// What to do.
    pub hint: String,
    /// How far folding had come when its time was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<SettleReport>,
}

/// What was wrong, for a program that answers in words of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// No VM has the id.
    NoSuchVm,
    /// The VM's state does not allow it.
    Conflict,
    /// A knob's name or value makes no sense.
    BadKnob,
    /// The advisor sets the knob.
    Advised,
    /// The knob can be set only while nothing is shared.
    Busy,
    /// Nothing is folded at present.
    NotFolding,
    /// A range is not one of whole pages.
    NotPages,
    /// The VM has no memory there.
    NoMemory,
    /// The process is ending, or has failed.
    Gone,
    /// Folding did not settle in time.
    Unsettled,
    /// One of a later version.
    #[serde(other)]
    Other,
}
