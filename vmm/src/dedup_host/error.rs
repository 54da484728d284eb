//! Why folding does not do what it is asked.

use std::io;

use pagefold_dedup::{EngineError, KnobError, PagesError, Run, SettleReport};

use crate::config::IntervalError;

/// Why folding cannot begin; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartDedupError {
    /// There is no thread for it.
    #[error("cannot start the folding thread")]
    Thread(#[source] io::Error),
    /// An interval is longer than a day.
    #[error(transparent)]
    Interval(#[from] IntervalError),
    /// The engine cannot be made.
    #[error("cannot set up folding")]
    Engine(#[source] EngineError),
}

/// The folding thread has ended, which it does only when it panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("folding has stopped; guests run on, and keep what they share")]
pub struct DedupGone;

/// Why a VM's memory is not folded; it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] pagefold_dedup::AttachError),
    /// Nobody folds any more.
    #[error(transparent)]
    Gone(#[from] DedupGone),
}

/// Why it is not so that everything is folded; folding goes on as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// Nothing is folded at present, so nothing would ever settle.
    #[error("folding is stopped (run={})", u32::from(*.0))]
    NotFolding(Run),
    /// Time was up first: some of what is unchanged is not folded yet.
    #[error(
        "folding has not settled within {} ms, in {} passes: give it more time, or let guests rest",
        .0.elapsed_ms, .0.passes
    )]
    TimedOut(SettleReport),
    /// Nobody folds any more.
    #[error(transparent)]
    Gone(#[from] DedupGone),
}

/// Why knobs were not changed; every one is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetKnobsError {
    /// A name or a value makes no sense, or not now.
    #[error(transparent)]
    Knob(#[from] KnobError),
    /// Nobody folds any more.
    #[error(transparent)]
    Gone(#[from] DedupGone),
}

/// Why what of a VM is folded was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeModeError {
    /// The engine refused.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// Nobody folds any more.
    #[error(transparent)]
    Gone(#[from] DedupGone),
}
