//! What can be wrong with a knob's value.

use super::KnobKind;
use crate::number::{NumberError, parse_number};

/// Why a knob was not changed. Every one is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KnobError {
    /// There is no such knob.
    #[error("there is no knob '{key}'; there are: {known}")]
    Unknown {
        /// The value requested.
        key: String,
        /// The names of all.
        known: String,
    },
    /// The value is not one that the knob takes.
    #[error("{key} is {allowed}, not '{value}'{}", because(.reason.as_ref()))]
    BadValue {
        /// The knob.
        key: &'static str,
        /// What it was to be.
        value: String,
        /// What it may be.
        allowed: String,
        /// What is wrong with its unit, if it has a decimal one.
        reason: Option<NumberError>,
    },
    /// The advisor could not keep both.
    #[error(
        "advisor_min_pages_to_scan is {min} and advisor_max_pages_to_scan {max}; the first may not \
         be above the second"
    )]
    AdvisorRange {
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// The advisor sets it.
    #[error("pages_to_scan is set by the advisor; set advisor_mode=none first")]
    Advised,
    /// It can be changed only while nothing is shared.
    #[error(
        "busy: {slots} slots are shared, or pages wait for twins, under the present {key}; unshare \
         everything first (run=2), then set {key}, then fold again (run=1)"
    )]
    Busy {
        /// The knob.
        key: &'static str,
        /// Slots in use, or about to be.
        slots: u64,
    },
}

impl KnobError {
    pub(super) fn bad(key: &'static str, value: &str, kind: KnobKind) -> Self {
        let is_number = kind != KnobKind::Advisor;
        let reason = is_number.then(|| parse_number(value).err()).flatten();
        Self::BadValue {
            key,
            value: value.to_owned(),
            allowed: kind.to_string(),
            // That it is no number, or not a whole one, is clear from what is allowed.
            reason: reason.filter(|reason| matches!(reason, NumberError::DecimalUnit(_))),
        }
    }
}

fn because(reason: Option<&NumberError>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}
