//! What there is to set: one table for setting by name, the checks, the errors and the help.

use std::fmt;

use super::{AdvisorMode, Knobs, Run};

/// A knob as a user sees it.
#[derive(Debug, Clone, Copy)]
pub struct KnobInfo {
    /// Its name, which is KSM's.
    pub name: &'static str,
    /// What it may be.
    pub kind: KnobKind,
    /// What it does, in a line.
    pub meaning: &'static str,
    pub(super) field: Field,
}

/// Where a knob's value is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field {
    Number(fn(&mut Knobs) -> &mut u32),
    Switch(fn(&mut Knobs) -> &mut bool),
    Run(fn(&mut Knobs) -> &mut Run),
    Advisor(fn(&mut Knobs) -> &mut AdvisorMode),
}

/// What a knob may be, which [`Display`](fmt::Display) writes.
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
    knob("run", KnobKind::Run, Field::Run(|knobs| &mut knobs.run), "what folding does"),
    number(
        "pages_to_scan",
        PAGES,
        |knobs| &mut knobs.pages_to_scan,
        "pages that are looked at before folding sleeps",
    ),
    number(
        "sleep_millisecs",
        MILLISECS,
        |knobs| &mut knobs.sleep_millisecs,
        "milliseconds of sleep then",
    ),
    switch(
        "merge_across_nodes",
        |knobs| &mut knobs.merge_across_nodes,
        "whether VMs on different NUMA nodes may share; only while nothing is shared",
    ),
    number(
        "max_page_sharing",
        SHARING,
        |knobs| &mut knobs.max_page_sharing,
        "pages that may share a slot; only while nothing is shared",
    ),
    switch(
        "smart_scan",
        |knobs| &mut knobs.smart_scan,
        "whether pages that keep changing, merged or not, are looked at more and more rarely",
    ),
    switch(
        "use_zero_pages",
        |knobs| &mut knobs.use_zero_pages,
        "whether pages of zeroes are given back to the kernel",
    ),
    number(
        "stable_node_chains_prune_millisecs",
        MILLISECS,
        |knobs| &mut knobs.stable_node_chains_prune_millisecs,
        "milliseconds between two looks for slots of one content that could be joined",
    ),
    knob(
        "advisor_mode",
        KnobKind::Advisor,
        Field::Advisor(|knobs| &mut knobs.advisor_mode),
        "who sets pages_to_scan: the user, or the advisor",
    ),
    number(
        "advisor_max_cpu",
        PER_CENT,
        |knobs| &mut knobs.advisor_max_cpu,
        "per cent of a processor that the advisor allows",
    ),
    number(
        "advisor_target_scan_time",
        SECONDS,
        |knobs| &mut knobs.advisor_target_scan_time,
        "seconds that the advisor wants a pass to take",
    ),
    number(
        "advisor_min_pages_to_scan",
        PAGES,
        |knobs| &mut knobs.advisor_min_pages_to_scan,
        "the least pages_to_scan that the advisor sets",
    ),
    number(
        "advisor_max_pages_to_scan",
        PAGES,
        |knobs| &mut knobs.advisor_max_pages_to_scan,
        "the most pages_to_scan that the advisor sets",
    ),
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

const fn number(
    name: &'static str,
    kind: KnobKind,
    field: fn(&mut Knobs) -> &mut u32,
    meaning: &'static str,
) -> KnobInfo {
    knob(name, kind, Field::Number(field), meaning)
}

const fn switch(
    name: &'static str,
    field: fn(&mut Knobs) -> &mut bool,
    meaning: &'static str,
) -> KnobInfo {
    knob(name, KnobKind::Switch, Field::Switch(field), meaning)
}

const fn knob(name: &'static str, kind: KnobKind, field: Field, meaning: &'static str) -> KnobInfo {
    KnobInfo { name, kind, meaning, field }
}
