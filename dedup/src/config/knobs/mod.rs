//! What can be changed while an engine works, under KSM's names.
//!
//! Source: the kernel's `Documentation/admin-guide/mm/ksm.rst`. Where a default differs from the
//! kernel's, its field documents why.

mod error;
mod set;
mod switch;
mod table;

use serde::{Deserialize, Serialize};

pub use error::KnobError;
use table::Field;
pub use table::{KNOB_NAMES, KNOBS, KnobInfo, KnobKind};

/// What an engine does with what it has been given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum Run {
    /// 0: nothing. What is shared stays so.
    Stop,
    /// 1: it folds.
    #[default]
    Fold,
    /// 2: it gives every page its own memory again, and then does nothing.
    Unmerge,
}

impl TryFrom<u32> for Run {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        match number {
            0 => Ok(Self::Stop),
            1 => Ok(Self::Fold),
            2 => Ok(Self::Unmerge),
            _ => Err(format!("run is 0, 1 or 2, not {number}")),
        }
    }
}

impl From<Run> for u32 {
    fn from(run: Run) -> Self {
        match run {
            Run::Stop => 0,
            Run::Fold => 1,
            Run::Unmerge => 2,
        }
    }
}

/// What decides how many pages are looked at before folding sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdvisorMode {
    /// The knob `pages_to_scan` as it is set.
    #[default]
    None,
    /// The engine, so that a pass takes `advisor_target_scan_time`.
    ScanTime,
}

/// Every knob. [`set`](Self::set) changes one by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knobs {
    /// What the engine does.
    pub run: Run,
    /// Pages that are looked at before folding sleeps. KSM's default is 100; a pass here looks at
    /// pages that have changed only, so it is 16384.
    pub pages_to_scan: u32,
    /// Milliseconds that it sleeps then; it does not while a caller waits for folding to settle.
    pub sleep_millisecs: u32,
    /// Whether VMs of one domain that run on different NUMA nodes may share. Changed only while
    /// nothing is shared.
    #[serde(with = "switch")]
    pub merge_across_nodes: bool,
    /// Pages that may share one slot. Content with more is kept in several. Changed only while
    /// nothing is shared.
    pub max_page_sharing: u32,
    /// Whether pages that keep changing, merged or not, are looked at more and more rarely.
    #[serde(with = "switch")]
    pub smart_scan: bool,
    /// Whether pages of zeroes are given back to the kernel, rather than shared as any others. On
    /// by default, other than KSM's: here it costs no mapping.
    #[serde(with = "switch")]
    pub use_zero_pages: bool,
    /// Milliseconds between two looks for dups that could be joined, at least.
    pub stable_node_chains_prune_millisecs: u32,
    /// What sets `pages_to_scan`.
    pub advisor_mode: AdvisorMode,
    /// Per cent of a processor that the advisor lets folding use, at most.
    pub advisor_max_cpu: u32,
    /// Seconds that a pass is to take, by which the advisor goes.
    pub advisor_target_scan_time: u32,
    /// The least `pages_to_scan` that the advisor sets.
    pub advisor_min_pages_to_scan: u32,
    /// The most `pages_to_scan` that the advisor sets.
    pub advisor_max_pages_to_scan: u32,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            run: Run::Fold,
            pages_to_scan: 16_384,
            sleep_millisecs: 20,
            merge_across_nodes: true,
            max_page_sharing: 256,
            smart_scan: true,
            use_zero_pages: true,
            stable_node_chains_prune_millisecs: 2000,
            advisor_mode: AdvisorMode::None,
            advisor_max_cpu: 70,
            advisor_target_scan_time: 200,
            advisor_min_pages_to_scan: 500,
            advisor_max_pages_to_scan: 30_000,
        }
    }
}

impl Knobs {
    /// Verifies that each value is within its range, and that they fit together.
    ///
    /// # Errors
    ///
    /// The first that is not, with its range.
    pub fn check(&self) -> Result<(), KnobError> {
        for KnobInfo { name, kind, field, .. } in KNOBS {
            let Field::Number(field) = field else { continue };
            let value = *field(&mut { *self });
            if !kind.allows(value) {
                return Err(KnobError::bad(name, &value.to_string(), kind));
            }
        }
        if self.advisor_min_pages_to_scan > self.advisor_max_pages_to_scan {
            return Err(KnobError::AdvisorRange {
                min: self.advisor_min_pages_to_scan,
                max: self.advisor_max_pages_to_scan,
            });
        }
        Ok(())
    }
}
