//! Where a page's item is.

use serde::{Deserialize, Serialize};

use crate::Slot;

/// Which tree a page's item is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemState {
    /// None.
    Loose,
    /// None: it differs from a page of its fingerprint, or that fingerprint is contested. It is to be offered by its
    /// identity, or is left alone until it changes if it was.
    Collided,
    /// The unstable tree.
    Waiting,
    /// Either, and its agent has deferred it for want of mappings.
    Deferred,
    /// As deferred, but its agent is about to offer it again.
    Retried,
    /// The stable tree, on a node that it does not share yet.
    Proposed,
    /// The stable tree, sharing the slot of its node.
    Shared(Option<Slot>),
}
