//! What there is to set: one table for the checks, the errors and the help.

use std::fmt;

/// A knob as a user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnobInfo {
    /// Its name, which is KSM's.
    pub name: &'static str,
    /// What it may be.
    pub kind: KnobKind,
    /// What it does, in a line.
    pub meaning: &'static str,
}

/// What a knob may be. [`Display`](fmt::Display) says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnobKind {
    /// A whole number in a range.
    Number {
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// 0 or 1.
    Switch,
    /// What the engine does: [`Run`](super::Run).
    Run,
    /// Who sets `pages_to_scan`: [`AdvisorMode`](super::AdvisorMode).
    Advisor,
}

impl fmt::Display for KnobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Switch => f.write_str("0 or 1"),
            Self::Run => f.write_str("0 (stop), 1 (fold) or 2 (unmerge everything)"),
            Self::Advisor => f.write_str("none or scan-time"),
        }
    }
}

/// What the kernel's `ksm` would take too, but for an upper bound where it has none that makes sense.
const PAGES: KnobKind = KnobKind::Number { min: 1, max: u32::MAX };
const MILLISECS: KnobKind = KnobKind::Number { min: 0, max: 86_400_000 };
const SHARING: KnobKind = KnobKind::Number { min: 2, max: 1 << 20 };
const PER_CENT: KnobKind = KnobKind::Number { min: 1, max: 100 };
const SECONDS: KnobKind = KnobKind::Number { min: 1, max: 86_400 };

const COUNT: usize = 13;

/// Every knob.
pub const KNOBS: [KnobInfo; COUNT] = [
    knob("run", KnobKind::Run, "what folding does"),
    knob("pages_to_scan", PAGES, "pages that are looked at before folding sleeps"),
    knob("sleep_millisecs", MILLISECS, "milliseconds of sleep then"),
    knob(
        "merge_across_nodes",
        KnobKind::Switch,
        "whether VMs on different NUMA nodes may share; only while nothing is shared",
    ),
    knob("max_page_sharing", SHARING, "pages that may share a slot; only while nothing is shared"),
    knob(
        "smart_scan",
        KnobKind::Switch,
        "whether pages that keep changing, merged or not, are looked at more and more rarely",
    ),
    knob(
        "use_zero_pages",
        KnobKind::Switch,
        "whether pages of zeroes are given back to the kernel",
    ),
    knob(
        "stable_node_chains_prune_millisecs",
        MILLISECS,
        "milliseconds between two looks for slots of one content that could be joined",
    ),
    knob("advisor_mode", KnobKind::Advisor, "who sets pages_to_scan: the user, or the advisor"),
    knob("advisor_max_cpu", PER_CENT, "per cent of a processor that the advisor allows"),
    knob("advisor_target_scan_time", SECONDS, "seconds that the advisor wants a pass to take"),
    knob("advisor_min_pages_to_scan", PAGES, "the least pages_to_scan that the advisor sets"),
    knob("advisor_max_pages_to_scan", PAGES, "the most pages_to_scan that the advisor sets"),
];

/// The knobs' names.
pub const KNOB_NAMES: [&str; COUNT] = {
    let mut names = [""; COUNT];
    let mut index = 0;
    while index < COUNT {
        names[index] = KNOBS[index].name;
        index += 1;
    }
    names
};

const fn knob(name: &'static str, kind: KnobKind, meaning: &'static str) -> KnobInfo {
    KnobInfo { name, kind, meaning }
}
