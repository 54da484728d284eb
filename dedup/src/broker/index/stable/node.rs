//! A stable node: a content that is shared, or about to be, and the slot that holds it.

use crate::Slot;
use crate::broker::ids::ItemId;
use crate::fingerprint::{Fingerprint, Identity};

/// How far a stable node has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Stage {
    /// Two pages or more seem to be equal. There is no slot yet: it is allocated when the first of
    /// their agents polls, in the order of its pages.
    Matched,
    /// An agent was sent a directive to fill the slot.
    Reserved,
    /// The slot holds the bytes.
    Filled,
}

/// A content that is shared, or about to be.
#[derive(Debug, Clone)]
pub(in crate::broker) struct StableNode {
    /// What it is found under in the tree: a fingerprint, or a part of an identity.
    pub(in crate::broker) key: Fingerprint,
    /// The identity of its bytes; nothing sensible before it is filled.
    pub(in crate::broker) identity: Identity,
    /// Where its bytes are; means nothing while it is matched.
    slot: Slot,
    /// Items on the list that are stable.
    pub(in crate::broker) sharers: u32,
    /// Items on the list that are proposed.
    pub(in crate::broker) proposed: u32,
    /// The first item of the list.
    pub(in crate::broker) head: Option<ItemId>,
    stage: Stage,
    /// Its index among its chain's dups; 0 for a regular node.
    pub(in crate::broker) dup_index: u32,
    /// Whether it takes no more items: just while it is the source or the target of a move, or lost. A lost node
    /// is no target.
    pub(in crate::broker) closed: bool,
    /// Whether the memory of its slot has failed: it must not be read. Its sharers can only be mapped to another slot
    /// without a comparison, and only those that still map the store (`Agent::replace_slot`).
    pub(in crate::broker) lost: bool,
    /// Whether a lone sharer is not made private. So it is once there have been two; the target of a move takes it over
    /// from the source. Before, a sharer is alone only because the partner that it was merged for declined. It is so no
    /// more when the sharer is to be made private after all: its partner has yielded, or VMAs are short.
    pub(in crate::broker) keeps_lone_sharer: bool,
}

const _: () = assert!(size_of::<StableNode>() <= 48);

impl StableNode {
    /// A matched node without items.
    pub(in crate::broker) fn new(key: Fingerprint) -> Self {
        Self {
            key,
            identity: Identity::NONE,
            slot: Slot(0),
            sharers: 0,
            proposed: 0,
            head: None,
            dup_index: 0,
            stage: Stage::Matched,
            closed: false,
            lost: false,
            keeps_lone_sharer: false,
        }
    }

    /// Items on the list: those that share the slot, and those that may.
    pub(in crate::broker) fn load(&self) -> u32 {
        self.sharers + self.proposed
    }

    /// Whether it has one sharer, which had others, and which its slot is kept for.
    pub(in crate::broker) fn is_left_alone(&self) -> bool {
        self.sharers == 1 && self.keeps_lone_sharer
    }

    pub(in crate::broker) fn stage(&self) -> Stage {
        self.stage
    }

    /// The slot, once there is one.
    pub(in crate::broker) fn slot(&self) -> Option<Slot> {
        (self.stage != Stage::Matched).then_some(self.slot)
    }

    /// The slot, once it holds the bytes.
    pub(in crate::broker) fn filled_slot(&self) -> Option<Slot> {
        (self.stage == Stage::Filled).then_some(self.slot)
    }

    /// Gives a matched node its slot.
    pub(in crate::broker) fn reserve(&mut self, slot: Slot) {
        debug_assert_eq!(self.stage, Stage::Matched);
        (self.stage, self.slot) = (Stage::Reserved, slot);
    }

    /// Notes that the slot holds the bytes, and their identity.
    pub(in crate::broker) fn fill(&mut self, identity: Identity) {
        debug_assert_eq!(self.stage, Stage::Reserved);
        (self.stage, self.identity) = (Stage::Filled, identity);
    }

    /// Takes the slot from a node that nobody shares, and leaves it matched.
    pub(in crate::broker) fn take_slot(&mut self) -> Option<Slot> {
        debug_assert_eq!(self.sharers, 0, "the slot of a node that is shared");
        let slot = self.slot();
        self.stage = Stage::Matched;
        slot
    }
}
