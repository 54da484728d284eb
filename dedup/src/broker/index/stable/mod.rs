//! The stable tree: the nodes of each content that is shared, found by key, and on each node the list of its items. It
//! is a hash index (`linear_hash`), and its name KSM's.

pub(in crate::broker) mod chain;
mod check;
mod items;
pub(in crate::broker) mod node;
mod place;
mod proposed;

use std::ops::Range;

use chain::{Chains, Entry};
use node::StableNode;
use proposed::ProposedCounts;

use super::arena::Arena;
use super::linear_hash::LinearHashIndex;
use crate::broker::ids::NodeId;
use crate::fingerprint::Fingerprint;

/// The tree, its nodes and chains, and the exact sums over them.
#[derive(Debug)]
pub(in crate::broker) struct StableTree {
    index: LinearHashIndex,
    pub(in crate::broker) chains: Chains,
    nodes: Arena<StableNode>,
    /// Items that a node may have.
    max_page_sharing: u32,
    /// Nodes with at least one sharer: KSM's `pages_shared`.
    pub(in crate::broker) shared: u64,
    /// Those with one sharer that is [left](StableNode::is_left_alone).
    pub(in crate::broker) left_alone_count: u64,
    /// Items that are stable: KSM's `pages_shared` and `pages_sharing` together.
    pub(in crate::broker) sharers: u64,
    /// Items that are proposed to nodes.
    pub(in crate::broker) proposed: ProposedCounts,
}

impl StableTree {
    pub(in crate::broker) fn new(max_page_sharing: u32) -> Self {
        Self {
            index: LinearHashIndex::default(),
            chains: Chains::default(),
            nodes: Arena::default(),
            max_page_sharing,
            shared: 0,
            left_alone_count: 0,
            sharers: 0,
            proposed: ProposedCounts::default(),
        }
    }

    /// A node of a content that has room for another item. O(1) expected.
    pub(in crate::broker) fn find(&self, key: Fingerprint) -> Option<NodeId> {
        let id = match self.entry(key)? {
            Entry::Node(id) => id,
            Entry::Chain(chain) => self.chains.dups(chain)[0],
        };
        self.has_room(id).then_some(id)
    }

    /// All nodes of a content: one, or a chain's dups. O(1) expected.
    pub(in crate::broker) fn nodes_of(&self, key: Fingerprint) -> Vec<NodeId> {
        match self.entry(key) {
            None => Vec::new(),
            Some(Entry::Node(id)) => vec![id],
            Some(Entry::Chain(chain)) => self.chains.dups(chain).to_vec(),
        }
    }

    /// What stands in the tree for a content.
    fn entry(&self, key: Fingerprint) -> Option<Entry> {
        let packed = self.index.find(key, key_of(&self.nodes, &self.chains))?;
        Some(Entry::from_packed(packed))
    }

    /// Puts something else in the place of what stands in the tree for a content.
    fn replace(&mut self, key: Fingerprint, entry: Entry) {
        let Self { index, nodes, chains, .. } = self;
        index.replace(key, entry.to_packed(), key_of(nodes, chains));
    }

    /// Whether another item may be proposed to a node.
    pub(in crate::broker) fn has_room(&self, id: NodeId) -> bool {
        let node = self.node(id);
        !node.closed && node.load() < self.max_page_sharing
    }

    /// Whether a node has no more items than it may.
    pub(in crate::broker) fn is_within_limit(&self, id: NodeId) -> bool {
        self.node(id).load() <= self.max_page_sharing
    }

    /// The most items that a node may have.
    pub(in crate::broker) fn max_page_sharing(&self) -> u32 {
        self.max_page_sharing
    }

    /// Changes that while there is no node.
    pub(in crate::broker) fn set_max_page_sharing(&mut self, max_page_sharing: u32) {
        debug_assert!(self.node_count() == 0, "nodes that were filled up to another limit");
        self.max_page_sharing = max_page_sharing;
    }

    /// How many nodes there are, shared or about to be.
    pub(in crate::broker) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Has a sharer that is [left alone](StableNode::is_left_alone) count as one whose partner declined: it is to be made
    /// private.
    pub(in crate::broker) fn mark_left_alone_to_unshare(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let was_left_alone = node.is_left_alone();
        node.keeps_lone_sharer &= node.sharers > 1;
        self.left_alone_count -= u64::from(was_left_alone);
    }

    /// Nodes whose sharer is [left alone](StableNode::is_left_alone), of those with indexes within `indexes`.
    pub(in crate::broker) fn left_alone_within(
        &self,
        indexes: Range<usize>,
    ) -> impl Iterator<Item = NodeId> {
        // One that is free has no sharers.
        let is_left_alone =
            |&index: &usize| self.nodes.get(index).is_some_and(StableNode::is_left_alone);
        indexes.filter(is_left_alone).filter_map(NodeId::from_index)
    }

    /// One above the highest index of a node.
    pub(in crate::broker) fn end(&self) -> usize {
        self.nodes.end()
    }

    /// Whether a node from whose list an item was just taken had no room before, and has some now.
    pub(in crate::broker) fn has_gained_room(&self, id: NodeId) -> bool {
        self.has_room(id) && self.node(id).load() + 1 == self.max_page_sharing
    }

    /// Lets a node take items, or not.
    pub(in crate::broker) fn set_closed(&mut self, id: NodeId, closed: bool) {
        self.node_mut(id).closed = closed;
        self.keep_place(id);
    }

    pub(in crate::broker) fn node(&self, id: NodeId) -> &StableNode {
        &self.nodes[id.index()]
    }

    pub(in crate::broker) fn node_mut(&mut self, id: NodeId) -> &mut StableNode {
        &mut self.nodes[id.index()]
    }

    /// Puts a matched node without items in, as a dup if the content has nodes already, whether these have room or not.
    /// `None` when ids run out. O(1) expected.
    pub(in crate::broker) fn insert(&mut self, key: Fingerprint) -> Option<NodeId> {
        let id = NodeId::from_index(self.nodes.next_index())?;
        self.nodes.insert(StableNode::new(key));
        if self.insert_key(key, id).is_none() {
            self.nodes.remove(id.index());
            return None;
        }
        Some(id)
    }

    /// Takes a node that has no items out. O(1) expected.
    pub(in crate::broker) fn remove(&mut self, id: NodeId) {
        debug_assert!(self.node(id).head.is_none(), "items on a node that goes");
        self.remove_key(id);
        self.nodes.remove(id.index());
    }

    /// What stands in the tree.
    pub(in crate::broker) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.index.iter().map(Entry::from_packed)
    }

    /// Verifies the tree itself.
    pub(in crate::broker) fn check_tree(&self) -> Result<(), String> {
        self.index.check(key_of(&self.nodes, &self.chains))
    }

    pub(in crate::broker) fn heap_bytes(&self) -> usize {
        self.index.heap_bytes()
            + self.chains.heap_bytes()
            + self.nodes.heap_bytes()
            + self.proposed.heap_bytes()
    }
}

/// The content that each of the tree's entries stands for.
fn key_of<'a>(
    nodes: &'a Arena<StableNode>,
    chains: &'a Chains,
) -> impl Fn(u32) -> Fingerprint + 'a {
    |packed| {
        let node = match Entry::from_packed(packed) {
            Entry::Node(id) => id,
            Entry::Chain(chain) => chains.dups(chain)[0],
        };
        nodes[node.index()].key
    }
}
