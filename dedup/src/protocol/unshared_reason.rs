//! Why a page shares nothing, by what is in its broker's trees.

use serde::{Deserialize, Serialize};

use crate::Slot;

/// Why a page that is in a tree, or has collided, shares nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnsharedReason {
    /// No other page in the trees is equal to it.
    Alone,
    /// Pages equal to it are in the trees, but on these NUMA nodes only, with which it may not share.
    OtherNumaNodes(Vec<u32>),
    /// Its content has slots, of which these are filled, and none takes another page: each is full, or
    /// has lost its bytes.
    Full(Vec<Slot>),
    /// It has twins, and is merged with them as soon as its agent, or another's, has polled for directives.
    Matched,
    /// It has twins, and when its agent polled last the store had no slot left for them.
    NoSlot,
}
