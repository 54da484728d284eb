//! How a page stands with its broker.

use serde::{Deserialize, Serialize};

use crate::Slot;

/// Why a page that is at rest shares nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// No other page in the trees is equal to it.
    Alone,
    /// Pages equal to it are in the trees, but on these NUMA nodes only, with which it may not share.
    OtherNodes(Vec<u32>),
    /// Its content has slots, of which these are filled, and none takes another page: each is full, or
    /// has lost its bytes.
    Full(Vec<Slot>),
    /// It has twins, and is to share with them as soon as its agent, or another's, has asked.
    Matched,
    /// It has twins, and when its agent last asked there was no slot to be had for them.
    NoSlot,
}

/// Which tree a page's item is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemState {
    /// None.
    Loose,
    /// None: it has differed from a page of its fingerprint, and waits to be offered by its name.
    Declined,
    /// The unstable tree.
    Waiting,
    /// Either, and its agent has put it off for want of mappings.
    PutOff,
    /// The stable tree, on a node that it does not share yet.
    Proposed,
    /// The stable tree, sharing the slot of its node.
    Shared(Option<Slot>),
}
