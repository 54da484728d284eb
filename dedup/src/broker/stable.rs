//! The stable tree: one node for each content that is shared, ordered by fingerprint, and on each
//! node the list of its items.

use std::collections::BTreeMap;

use super::arena::push_tight;
use super::ids::{ItemId, NodeId};
use super::rmap::{Link, Rmap, RmapItem, Role};
use crate::Slot;
use crate::fingerprint::{Fingerprint, Identity};

/// How far a stable node has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Two pages or more seem to be equal. There is no slot yet: it is given out when the first of
    /// their agents asks what to do, in the order of its pages.
    Matched,
    /// An agent was told to fill the slot.
    Reserved,
    /// The slot holds the bytes.
    Filled,
}

/// A content that is shared, or about to be.
#[derive(Debug, Clone)]
pub(super) struct StableNode {
    /// Its place in the tree.
    pub(super) fingerprint: Fingerprint,
    /// The name of its bytes; nothing sensible before it is filled.
    pub(super) identity: Identity,
    /// Where its bytes are; means nothing while it is matched.
    slot: Slot,
    /// Items on the list that are stable.
    pub(super) sharers: u32,
    /// Items on the list that are pending.
    pub(super) pending: u32,
    /// The first item of the list.
    head: Option<ItemId>,
    stage: Stage,
    /// Whether it ever had two sharers. Until then, a lone sharer is there only because the
    /// partner it was made for declined.
    pub(super) paired: bool,
}

// Room is left for a chain's links.
const _: () = assert!(size_of::<StableNode>() <= 64);

impl StableNode {
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// The slot, once there is one.
    pub(super) fn slot(&self) -> Option<Slot> {
        (self.stage != Stage::Matched).then_some(self.slot)
    }

    /// The slot, once it holds the bytes.
    pub(super) fn filled_slot(&self) -> Option<Slot> {
        (self.stage == Stage::Filled).then_some(self.slot)
    }

    /// Gives a matched node its slot.
    pub(super) fn reserve(&mut self, slot: Slot) {
        debug_assert_eq!(self.stage, Stage::Matched);
        (self.stage, self.slot) = (Stage::Reserved, slot);
    }

    /// Notes that the slot holds the bytes, and their name.
    pub(super) fn fill(&mut self, identity: Identity) {
        debug_assert_eq!(self.stage, Stage::Reserved);
        (self.stage, self.identity) = (Stage::Filled, identity);
    }

    /// Takes the slot from a node that nobody shares, and leaves it matched.
    pub(super) fn take_slot(&mut self) -> Option<Slot> {
        debug_assert_eq!(self.sharers, 0, "the slot of a node that is shared");
        let slot = self.slot();
        self.stage = Stage::Matched;
        slot
    }
}

/// The tree, its nodes, and the exact sums over them.
#[derive(Debug, Default)]
pub(super) struct StableTree {
    tree: BTreeMap<Fingerprint, NodeId>,
    nodes: Vec<StableNode>,
    free: Vec<NodeId>,
    /// Nodes with at least one sharer.
    pub(super) shared: u64,
    /// Items that are stable.
    pub(super) sharers: u64,
}

impl StableTree {
    /// The node of a content. O(log n).
    pub(super) fn find(&self, fingerprint: Fingerprint) -> Option<NodeId> {
        self.tree.get(&fingerprint).copied()
    }

    pub(super) fn node(&self, id: NodeId) -> &StableNode {
        &self.nodes[id.index()]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut StableNode {
        &mut self.nodes[id.index()]
    }

    /// Puts a matched node without items in; its fingerprint must not be there. `None` when ids run
    /// out. O(log n).
    pub(super) fn insert(&mut self, fingerprint: Fingerprint) -> Option<NodeId> {
        let node = StableNode {
            fingerprint,
            identity: Identity([0; blake3::OUT_LEN]),
            slot: Slot(0),
            sharers: 0,
            pending: 0,
            head: None,
            stage: Stage::Matched,
            paired: false,
        };
        let id = if let Some(id) = self.free.pop() {
            self.nodes[id.index()] = node;
            id
        } else {
            let id = NodeId::from_index(self.nodes.len())?;
            push_tight(&mut self.nodes, node);
            id
        };
        let before = self.tree.insert(fingerprint, id);
        debug_assert!(before.is_none(), "a content twice in the stable tree");
        Some(id)
    }

    /// Takes a node that has no items out. O(log n).
    pub(super) fn remove(&mut self, id: NodeId) {
        debug_assert!(self.node(id).head.is_none(), "items on a node that goes");
        self.tree.remove(&self.nodes[id.index()].fingerprint);
        self.free.push(id);
    }

    /// Puts a loose item on the node's list, pending. O(1).
    pub(super) fn propose(&mut self, rmap: &mut Rmap, id: NodeId, item: ItemId, role: Role) {
        let node = &mut self.nodes[id.index()];
        let link = Link { node: id, next: node.head, prev: None };
        if let Some(head) = node.head
            && let Some(head) = rmap.item_mut(head).link_mut()
        {
            head.prev = Some(item);
        }
        node.head = Some(item);
        node.pending += 1;
        *rmap.item_mut(item) = RmapItem::Pending { link, role };
    }

    /// Makes a pending item stable; says on which node. O(1).
    pub(super) fn confirm(&mut self, rmap: &mut Rmap, item: ItemId) -> NodeId {
        let RmapItem::Pending { link, .. } = *rmap.item(item) else {
            unreachable!("only a pending item is confirmed")
        };
        *rmap.item_mut(item) = RmapItem::Stable(link);
        let node = &mut self.nodes[link.node.index()];
        node.pending -= 1;
        node.sharers += 1;
        node.paired |= node.sharers == 2;
        self.sharers += 1;
        self.shared += u64::from(node.sharers == 1);
        link.node
    }

    /// Takes an item off its node's list and leaves it loose; says which node it was. O(1).
    pub(super) fn unlink(&mut self, rmap: &mut Rmap, item: ItemId) -> Option<NodeId> {
        let state = *rmap.item(item);
        let link = *state.link()?;
        let neighbour = |rmap: &mut Rmap, id: Option<ItemId>, set: &dyn Fn(&mut Link)| {
            if let Some(link) = id.and_then(|id| rmap.item_mut(id).link_mut()) {
                set(link);
            }
        };
        neighbour(rmap, link.next, &|next| next.prev = link.prev);
        neighbour(rmap, link.prev, &|prev| prev.next = link.next);
        let node = &mut self.nodes[link.node.index()];
        if node.head == Some(item) {
            node.head = link.next;
        }
        if let RmapItem::Stable(_) = state {
            node.sharers -= 1;
            self.sharers -= 1;
            self.shared -= u64::from(node.sharers == 0);
        } else {
            node.pending -= 1;
        }
        *rmap.item_mut(item) = RmapItem::Loose;
        Some(link.node)
    }

    /// The items of a node, stable and pending.
    pub(super) fn items<'a>(
        &self,
        rmap: &'a Rmap,
        id: NodeId,
    ) -> impl Iterator<Item = ItemId> + use<'a> {
        std::iter::successors(self.node(id).head, |&item| rmap.item(item).link()?.next)
    }

    /// The nodes in the tree, by fingerprint.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Fingerprint, NodeId)> + '_ {
        self.tree.iter().map(|(&fingerprint, &id)| (fingerprint, id))
    }

    /// Bytes on the heap, about: B-tree entries count with their share of half-filled nodes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.tree.len() * size_of::<(Fingerprint, NodeId)>() * 3 / 2
            + self.nodes.capacity() * size_of::<StableNode>()
            + self.free.capacity() * size_of::<NodeId>()
    }
}
