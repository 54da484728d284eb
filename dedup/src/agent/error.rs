//! Why an agent cannot begin, and why a visit of its VM ends early.
#![forbid(unsafe_code)]

use std::io;

use crate::protocol::BrokerError;
use crate::regions::LayoutError;
use crate::sys::{RegionError, UnfoldableMemory, UserfaultfdError};

/// Why a VM's memory cannot be folded. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AgentSetupError {
    /// Its regions make no sense.
    #[error("the VM's memory cannot be folded")]
    Regions(#[from] RegionError),
    /// Its regions contradict each other.
    #[error("the VM's regions cannot be laid out")]
    Layout(#[from] LayoutError),
    /// It is memory of a kind that cannot be folded.
    #[error("memory of this kind cannot be folded")]
    Unfoldable(#[from] UnfoldableMemory),
    /// Its pages cannot be protected.
    #[error("guest pages cannot be write-protected")]
    Userfaultfd(#[from] UserfaultfdError),
    /// The kernel refused to watch its memory.
    #[error("cannot prepare the VM's memory for folding")]
    Prepare(#[source] io::Error),
    /// The kernel does not report which pages are private.
    #[error("cannot read the page map; is /proc mounted?")]
    Pagemap(#[source] io::Error),
}

/// Why a pass ended early. Every page is in a state that the next pass handles.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The change source failed.
    #[error("cannot find out which pages changed")]
    Changes(#[source] io::Error),
    /// The page map could not be read.
    #[error("cannot scan the page map (PAGEMAP_SCAN needs Linux 6.7 or later)")]
    Pagemap(#[source] io::Error),
    /// The kernel has no memory to give pages back to themselves.
    #[error("cannot make shared pages private; is memory short?")]
    Unmerge(#[source] io::Error),
    /// The broker refused or failed.
    #[error("the broker failed")]
    Broker(#[from] BrokerError),
}
