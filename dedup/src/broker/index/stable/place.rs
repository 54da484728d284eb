//! Where nodes stand: in the tree, or on a chain, those that have room before those that have none.

use super::chain::Entry;
use super::{StableTree, key_of};
use crate::broker::ids::{ChainId, NodeId};
use crate::fingerprint::Fingerprint;

impl StableTree {
    /// Gives a new node its place in the tree or on its chain.
    pub(super) fn insert_key(&mut self, key: Fingerprint, id: NodeId) -> Option<()> {
        let chain = match self.entry(key) {
            None => {
                let Self { index, nodes, chains, .. } = self;
                index.insert(key, Entry::Node(id).to_packed(), key_of(nodes, chains));
                return Some(());
            }
            Some(Entry::Chain(chain)) => chain,
            Some(Entry::Node(regular)) => {
                let chain = self.chains.insert()?;
                self.chains.push(chain, regular);
                self.replace(key, Entry::Chain(chain));
                self.keep_place(regular);
                chain
            }
        };
        let dup_index = self.chains.push(chain, id);
        self.nodes[id.index()].dup_index = u32::try_from(dup_index).ok()?;
        self.keep_place(id);
        Some(())
    }

    /// Has a node stand under another key, as a dup if there are nodes under it already; returns whether
    /// it does, and did not before. It stays where it is if ids run out. O(1) expected.
    pub(in crate::broker) fn set_key(&mut self, id: NodeId, key: Fingerprint) -> bool {
        if self.node(id).key == key || self.chains.has_no_ids() {
            return false;
        }
        self.remove_key(id);
        let node = self.node_mut(id);
        (node.key, node.dup_index) = (key, 0);
        let placed = self.insert_key(key, id);
        debug_assert!(placed.is_some(), "there was an id to spare");
        placed.is_some()
    }

    /// Takes a node out of the tree or off its chain. A chain that it leaves with one dup is one no
    /// more. O(1) expected.
    pub(super) fn remove_key(&mut self, id: NodeId) {
        let key = self.node(id).key;
        if let Some(Entry::Chain(chain)) = self.entry(key) {
            self.move_behind_those_with_room(chain, id);
            let dup_index = self.node(id).dup_index;
            if let Some(moved) = self.chains.take(chain, dup_index as usize) {
                self.nodes[moved.index()].dup_index = dup_index;
            }
            if let [last] = *self.chains.dups(chain) {
                self.replace(key, Entry::Node(last));
                self.chains.take(chain, 0);
                self.chains.remove(chain);
                self.nodes[last.index()].dup_index = 0;
            }
        } else {
            let Self { index, nodes, chains, .. } = self;
            index.remove(key, key_of(nodes, chains));
        }
    }

    /// Sees to it that a node is among the dups of its chain that have room if it has any, and that
    /// the first of those is a good one to fill up next. To be called when a node may have come to
    /// have room, or none. O(1) expected.
    pub(super) fn keep_place(&mut self, id: NodeId) {
        let Some(Entry::Chain(chain)) = self.entry(self.node(id).key) else { return };
        if !self.has_room(id) {
            self.move_behind_those_with_room(chain, id);
            return;
        }
        let (dup_index, with_room_count) =
            (self.node(id).dup_index as usize, self.chains.with_room_count(chain));
        if dup_index >= with_room_count {
            self.swap(chain, dup_index, with_room_count);
            self.chains.set_with_room_count(chain, with_room_count + 1);
        }
    }

    /// Puts a dup among those without room. If it was the chain's first, the fullest of the next few
    /// that have room becomes the first: of all of them, unless there are very many.
    fn move_behind_those_with_room(&mut self, chain: ChainId, id: NodeId) {
        const CANDIDATES: usize = 16;
        let (dup_index, with_room_count) =
            (self.node(id).dup_index as usize, self.chains.with_room_count(chain));
        if dup_index >= with_room_count {
            return;
        }
        let with_room_count = with_room_count - 1;
        self.swap(chain, dup_index, with_room_count);
        self.chains.set_with_room_count(chain, with_room_count);
        let with_room = &self.chains.dups(chain)[..with_room_count.min(CANDIDATES)];
        let best = with_room.iter().max_by_key(|dup| self.node(**dup).load());
        if let Some(&best) = best.filter(|_| dup_index == 0) {
            self.swap(chain, 0, self.node(best).dup_index as usize);
        }
    }

    /// Exchanges the dups at two indexes of a chain.
    fn swap(&mut self, chain: ChainId, one: usize, other: usize) {
        let dups = self.chains.dups(chain);
        let (first, second) = (dups[one].index(), dups[other].index());
        let dup_index = self.nodes[first].dup_index;
        self.nodes[first].dup_index = self.nodes[second].dup_index;
        self.nodes[second].dup_index = dup_index;
        self.chains.swap(chain, one, other);
    }
}
