//! The unstable tree: private pages that have not changed since the last pass and have no twin yet, found by key.
//!
//! Unlike KSM's it is kept from pass to pass: agents report the pages that changed, and
//! these are taken out one by one.

use super::linear_hash::LinearHashIndex;
use crate::broker::ids::ItemId;
use crate::broker::rmap::{Rmap, RmapItem};
use crate::fingerprint::Fingerprint;

/// One item a key: the second becomes a stable node's partner of the first. The items hold
/// their keys.
#[derive(Debug, Default)]
pub(in crate::broker) struct UnstableTree(LinearHashIndex);

impl UnstableTree {
    /// Puts an item in, unless another one holds its place. O(1) expected.
    pub(in crate::broker) fn insert(
        &mut self,
        rmap: &Rmap,
        key: Fingerprint,
        item: ItemId,
    ) -> bool {
        if self.0.find(key, key_of(rmap)).is_some() {
            return false;
        }
        self.0.insert(key, item.to_packed(), key_of(rmap));
        true
    }

    /// Takes the item with this key out. O(1) expected.
    pub(in crate::broker) fn remove(&mut self, rmap: &Rmap, key: Fingerprint) -> Option<ItemId> {
        ItemId::from_packed(self.0.remove(key, key_of(rmap))?)
    }

    /// The item with this key. O(1) expected.
    pub(in crate::broker) fn find(&self, rmap: &Rmap, key: Fingerprint) -> Option<ItemId> {
        ItemId::from_packed(self.0.find(key, key_of(rmap))?)
    }

    pub(in crate::broker) fn len(&self) -> usize {
        self.0.len()
    }

    pub(in crate::broker) fn iter(&self) -> impl Iterator<Item = ItemId> + '_ {
        self.0.iter().filter_map(ItemId::from_packed)
    }

    /// Verifies the tree itself.
    pub(in crate::broker) fn check(&self, rmap: &Rmap) -> Result<(), String> {
        self.0.check(key_of(rmap))
    }

    pub(in crate::broker) fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

/// The keys of the items of the tree.
fn key_of(rmap: &Rmap) -> impl Fn(u32) -> Fingerprint + Copy + '_ {
    |packed| match ItemId::from_packed(packed).map(|item| rmap.item(item)) {
        Some(RmapItem::Waiting(key, _)) => key,
        state => unreachable!("what is packed as {packed} on the unstable tree is {state:?}"),
    }
}
