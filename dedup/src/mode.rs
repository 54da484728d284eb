//! How much of a VM is folded.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What may be done with a VM's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DedupMode {
    /// Nothing.
    Off,
    /// Pages of zeroes are given back; nothing is shared.
    Zero,
    /// Pages of zeroes are given back, and equal pages are shared with the VM's domain.
    #[default]
    On,
}

/// A mode that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a dedup mode; use one of: off, zero, on")]
pub struct UnknownModeError(String);

impl fmt::Display for DedupMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Zero => "zero",
            Self::On => "on",
        })
    }
}

impl FromStr for DedupMode {
    type Err = UnknownModeError;

    fn from_str(name: &str) -> Result<Self, UnknownModeError> {
        match name {
            "off" => Ok(Self::Off),
            "zero" => Ok(Self::Zero),
            "on" => Ok(Self::On),
            _ => Err(UnknownModeError(name.to_owned())),
        }
    }
}
