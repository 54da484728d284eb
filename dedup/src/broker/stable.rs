//! The stable tree: one node for each content that is shared, ordered by fingerprint, and on each
//! node the list of its items.

mod check;

use super::arena::Arena;
use super::chain::{Chains, Entry};
use super::ids::{ChainId, ItemId, NodeId};
use super::rmap::{Link, Rmap, RmapItem, Role};
use super::smart_scan::Age;
use super::stable_node::StableNode;
use super::standing::PendingCounts;
use super::tree::FingerprintTree;
use crate::fingerprint::Fingerprint;

/// The tree, its nodes and chains, and the exact sums over them.
#[derive(Debug)]
pub(super) struct StableTree {
    tree: FingerprintTree,
    pub(super) chains: Chains,
    nodes: Arena<StableNode>,
    /// Items that a node may have.
    max_page_sharing: u32,
    /// Nodes with at least one sharer.
    pub(super) shared: u64,
    /// Items that are stable.
    pub(super) sharers: u64,
    /// Items that are pending.
    pub(super) pending: PendingCounts,
}

impl StableTree {
    pub(super) fn new(max_page_sharing: u32) -> Self {
        Self {
            tree: FingerprintTree::default(),
            chains: Chains::default(),
            nodes: Arena::default(),
            max_page_sharing,
            shared: 0,
            sharers: 0,
            pending: PendingCounts::default(),
        }
    }

    /// A node of a content that has room for another item. O(1) expected.
    pub(super) fn find(&self, fingerprint: Fingerprint) -> Option<NodeId> {
        let id = match self.entry(fingerprint)? {
            Entry::Node(id) => id,
            Entry::Chain(chain) => self.chains.dups(chain)[0],
        };
        self.has_room(id).then_some(id)
    }

    /// All nodes of a content: one, or a chain's dups. O(1) expected.
    pub(super) fn nodes_of(&self, fingerprint: Fingerprint) -> Vec<NodeId> {
        match self.entry(fingerprint) {
            None => Vec::new(),
            Some(Entry::Node(id)) => vec![id],
            Some(Entry::Chain(chain)) => self.chains.dups(chain).to_vec(),
        }
    }

    /// What stands in the tree for a content.
    fn entry(&self, fingerprint: Fingerprint) -> Option<Entry> {
        let number = self.tree.find(fingerprint, key_of(&self.nodes, &self.chains))?;
        Some(Entry::from_number(number))
    }

    /// Puts something else in the place of what stands in the tree for a content.
    fn replace(&mut self, fingerprint: Fingerprint, entry: Entry) {
        let Self { tree, nodes, chains, .. } = self;
        tree.replace(fingerprint, entry.to_number(), key_of(nodes, chains));
    }

    /// Whether another item may be proposed to a node.
    pub(super) fn has_room(&self, id: NodeId) -> bool {
        let node = self.node(id);
        !node.closed && node.load() < self.max_page_sharing
    }

    /// Whether a node has no more items than it may.
    pub(super) fn is_within_limit(&self, id: NodeId) -> bool {
        self.node(id).load() <= self.max_page_sharing
    }

    /// The most items that a node may have.
    pub(super) fn max_page_sharing(&self) -> u32 {
        self.max_page_sharing
    }

    /// Changes that while there is no node.
    pub(super) fn set_max_page_sharing(&mut self, max_page_sharing: u32) {
        debug_assert!(self.count_nodes() == 0, "nodes that were filled up to another limit");
        self.max_page_sharing = max_page_sharing;
    }

    /// How many nodes there are, shared or about to be.
    pub(super) fn count_nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Whether a node has just come to have room again.
    pub(super) fn was_full(&self, id: NodeId) -> bool {
        self.has_room(id) && self.node(id).load() + 1 == self.max_page_sharing
    }

    /// Lets a node take items, or not.
    pub(super) fn set_closed(&mut self, id: NodeId, closed: bool) {
        self.node_mut(id).closed = closed;
        self.keep_place(id);
    }

    pub(super) fn node(&self, id: NodeId) -> &StableNode {
        &self.nodes[id.index()]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut StableNode {
        &mut self.nodes[id.index()]
    }

    /// Puts a matched node without items in, as a dup if the content has nodes already; these must
    /// be full. `None` when ids run out. O(1) expected.
    pub(super) fn insert(&mut self, fingerprint: Fingerprint) -> Option<NodeId> {
        let id = NodeId::from_index(self.nodes.next_number())?;
        self.nodes.insert(StableNode::new(fingerprint));
        if self.place(fingerprint, id).is_none() {
            self.nodes.remove(id.index());
            return None;
        }
        Some(id)
    }

    /// Gives a new node its place in the tree or on its chain.
    fn place(&mut self, fingerprint: Fingerprint, id: NodeId) -> Option<()> {
        let chain = match self.entry(fingerprint) {
            None => {
                let Self { tree, nodes, chains, .. } = self;
                tree.insert(fingerprint, Entry::Node(id).to_number(), key_of(nodes, chains));
                return Some(());
            }
            Some(Entry::Chain(chain)) => chain,
            Some(Entry::Node(regular)) => {
                let chain = self.chains.insert()?;
                self.chains.push(chain, regular);
                self.replace(fingerprint, Entry::Chain(chain));
                self.keep_place(regular);
                chain
            }
        };
        let place = self.chains.push(chain, id);
        self.nodes[id.index()].place = u32::try_from(place).ok()?;
        self.keep_place(id);
        Some(())
    }

    /// Takes a node that has no items out. O(1) expected.
    pub(super) fn remove(&mut self, id: NodeId) {
        debug_assert!(self.node(id).head.is_none(), "items on a node that goes");
        self.displace(id);
        self.nodes.remove(id.index());
    }

    /// Has a node stand under another key, as a dup if there are nodes under it already; says whether
    /// it does, and did not before. It stays where it is if ids run out. O(1) expected.
    pub(super) fn set_key(&mut self, id: NodeId, key: Fingerprint) -> bool {
        if self.node(id).fingerprint == key || self.chains.is_full() {
            return false;
        }
        self.displace(id);
        let node = self.node_mut(id);
        (node.fingerprint, node.place) = (key, 0);
        let placed = self.place(key, id);
        debug_assert!(placed.is_some(), "there was an id to spare");
        placed.is_some()
    }

    /// Takes a node out of the tree or off its chain. A chain that it leaves with one dup is one no
    /// more. O(1) expected.
    fn displace(&mut self, id: NodeId) {
        let fingerprint = self.node(id).fingerprint;
        if let Some(Entry::Chain(chain)) = self.entry(fingerprint) {
            self.shut(chain, id);
            let place = self.node(id).place;
            if let Some(moved) = self.chains.take(chain, place as usize) {
                self.nodes[moved.index()].place = place;
            }
            if let [last] = *self.chains.dups(chain) {
                self.replace(fingerprint, Entry::Node(last));
                self.chains.take(chain, 0);
                self.chains.remove(chain);
                self.nodes[last.index()].place = 0;
            }
        } else {
            let Self { tree, nodes, chains, .. } = self;
            tree.remove(fingerprint, key_of(nodes, chains));
        }
    }

    /// Sees to it that a node is among the dups of its chain that have room if it has any, and that
    /// the first of those is a good one to fill up next. To be called when a node may have come to
    /// have room, or none. O(1) expected.
    fn keep_place(&mut self, id: NodeId) {
        let Some(Entry::Chain(chain)) = self.entry(self.node(id).fingerprint) else { return };
        if !self.has_room(id) {
            self.shut(chain, id);
            return;
        }
        let (place, count_open) = (self.node(id).place as usize, self.chains.count_open(chain));
        if place >= count_open {
            self.swap(chain, place, count_open);
            self.chains.set_count_open(chain, count_open + 1);
        }
    }

    /// Puts a dup among those without room. If it was the chain's first, the fullest of the next few
    /// that have room becomes the first: of all of them, unless there are very many.
    fn shut(&mut self, chain: ChainId, id: NodeId) {
        const CANDIDATES: usize = 16;
        let (place, count_open) = (self.node(id).place as usize, self.chains.count_open(chain));
        if place >= count_open {
            return;
        }
        let count_open = count_open - 1;
        self.swap(chain, place, count_open);
        self.chains.set_count_open(chain, count_open);
        let open = &self.chains.dups(chain)[..count_open.min(CANDIDATES)];
        let best = open.iter().max_by_key(|dup| self.node(**dup).load());
        if let Some(&best) = best.filter(|_| place == 0) {
            self.swap(chain, 0, self.node(best).place as usize);
        }
    }

    /// Exchanges the dups at two places of a chain.
    fn swap(&mut self, chain: ChainId, one: usize, other: usize) {
        let dups = self.chains.dups(chain);
        let (first, second) = (dups[one].index(), dups[other].index());
        let place = self.nodes[first].place;
        self.nodes[first].place = self.nodes[second].place;
        self.nodes[second].place = place;
        self.chains.swap(chain, one, other);
    }

    /// Puts a loose item on the node's list, pending. O(1).
    pub(super) fn propose(&mut self, rmap: &mut Rmap, id: NodeId, item: ItemId, role: Role) {
        let node = &mut self.nodes[id.index()];
        let link = Link { node: id, next: node.head, prev: None };
        relink(rmap, node.head, |head| head.prev = Some(item));
        node.head = Some(item);
        node.pending += 1;
        rmap.set(item, RmapItem::Pending { link, role });
        self.pending.add(rmap.page(item).0);
        if self.node(id).load() >= self.max_page_sharing {
            self.keep_place(id);
        }
    }

    /// Makes a pending item stable; says on which node. O(1).
    pub(super) fn confirm(&mut self, rmap: &mut Rmap, item: ItemId) -> NodeId {
        let RmapItem::Pending { link, .. } = rmap.item(item) else {
            unreachable!("only a pending item is confirmed")
        };
        rmap.set(item, RmapItem::Stable(link));
        let node = &mut self.nodes[link.node.index()];
        node.pending -= 1;
        node.sharers += 1;
        node.paired |= node.sharers == 2;
        self.sharers += 1;
        self.shared += u64::from(node.sharers == 1);
        self.pending.remove(rmap.page(item).0);
        link.node
    }

    /// Takes an item off its node's list and leaves it loose; says which node it was. O(1).
    pub(super) fn unlink(&mut self, rmap: &mut Rmap, item: ItemId) -> Option<NodeId> {
        let state = rmap.item(item);
        let link = *state.link()?;
        relink(rmap, link.next, |next| next.prev = link.prev);
        relink(rmap, link.prev, |prev| prev.next = link.next);
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
            self.pending.remove(rmap.page(item).0);
        }
        rmap.set(item, RmapItem::Loose(Age::NEW));
        if self.node(link.node).load() + 1 >= self.max_page_sharing {
            self.keep_place(link.node);
        }
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

    /// What stands in the tree.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.tree.iter().map(Entry::from_number)
    }

    /// Verifies the tree itself.
    pub(super) fn check_tree(&self) -> Result<(), String> {
        self.tree.check(key_of(&self.nodes, &self.chains))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.tree.heap_bytes()
            + self.chains.heap_bytes()
            + self.nodes.heap_bytes()
            + self.pending.heap_bytes()
    }
}

/// Changes the link of a neighbour on a node's list, if there is one.
fn relink(rmap: &mut Rmap, neighbour: Option<ItemId>, change: impl FnOnce(&mut Link)) {
    let Some(id) = neighbour else { return };
    let item = rmap.item(id);
    if let Some(mut link) = item.link().copied() {
        change(&mut link);
        rmap.set(id, item.with_link(link));
    }
}

/// The content that each of the tree's entries stands for.
fn key_of<'a>(
    nodes: &'a Arena<StableNode>,
    chains: &'a Chains,
) -> impl Fn(u32) -> Fingerprint + 'a {
    |number| {
        let node = match Entry::from_number(number) {
            Entry::Node(id) => id,
            Entry::Chain(chain) => chains.dups(chain)[0],
        };
        nodes[node.index()].fingerprint
    }
}
