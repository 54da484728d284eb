//! The unstable tree: calm private pages that have no twin yet, ordered by fingerprint.
//!
//! Unlike KSM's it is kept from pass to pass: change tracking names the pages that are stale, and
//! they are taken out one by one.

use std::collections::BTreeMap;

use super::ids::ItemId;
use crate::fingerprint::Fingerprint;

/// One item a fingerprint: the second becomes a stable node's partner of the first.
#[derive(Debug, Default)]
pub(super) struct UnstableTree(BTreeMap<Fingerprint, ItemId>);

impl UnstableTree {
    /// Puts an item in, unless another one holds its place. O(log n).
    pub(super) fn insert(&mut self, key: Fingerprint, item: ItemId) -> bool {
        match self.0.entry(key) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(item);
                true
            }
            std::collections::btree_map::Entry::Occupied(_) => false,
        }
    }

    /// Takes the item with this fingerprint out. O(log n).
    pub(super) fn remove(&mut self, key: Fingerprint) -> Option<ItemId> {
        self.0.remove(&key)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Fingerprint, ItemId)> + '_ {
        self.0.iter().map(|(&key, &item)| (key, item))
    }

    /// Bytes on the heap, about: an entry and its share of half-filled nodes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.0.len() * size_of::<(Fingerprint, ItemId)>() * 3 / 2
    }
}
