//! Different contents that have one fingerprint.
//!
//! XXH3 keeps nobody from making such contents who knows the domain's secret. The first of them that
//! had a node under the fingerprint would keep all others from ever being shared. So the key under
//! which a page was found to differ from the slot that was proposed for it is noted with the page; if
//! the page is offered with the same fingerprint again, that fingerprint is *contested*: what stands
//! under it is moved to the key that its BLAKE3 gives, and pages with it are asked for theirs.
//!
//! Nor can anybody who knows the secret find a page that has the first 64 bits of another one's
//! BLAKE3. Two of one's own are within reach, however. They are told apart by the other 64 bits, or
//! by their bytes: the one that comes second is left alone until it changes.
//!
//! A fingerprint that is contested stays so while anything stands in the trees. What stands under a name cannot
//! be found by its fingerprint, which nothing remembers, so pages offered later would share nothing with it if
//! they were not asked for their names any more. Once both trees are empty, as after unmerging everything, or
//! when the last VM has left and the domain with it, nothing is lost by forgetting it.

use std::collections::HashSet;

use crate::VmId;
use crate::broker::LocalBroker;
use crate::broker::ids::{ItemId, NodeId};
use crate::broker::rmap::RmapItem;
use crate::fingerprint::Fingerprint;
use crate::protocol::{BrokerError, Decision, NamedOffer};

/// Contested fingerprints that are kept one by one. Once there are more, all are taken for contested: nothing
/// less is shared, but each offer costs 1.8 µs more for its BLAKE3. A guest that does not know the secret, which
/// is drawn for each domain and never leaves the process, cannot bring that about, nor does chance: it takes as
/// many pairs that collide, and 2^40 different pages have about so many.
const MAX_CONTESTED: usize = 1 << 16;

/// The fingerprints that say nothing about whether pages are equal.
#[derive(Debug, Default)]
pub(in crate::broker) struct Contested {
    keys: HashSet<Fingerprint>,
    all: bool,
}

impl Contested {
    /// Whether pages with this key are asked for their names.
    pub(in crate::broker) fn contains(&self, key: Fingerprint) -> bool {
        self.all || self.keys.contains(&key)
    }

    /// Whether there are any.
    pub(in crate::broker) fn is_empty(&self) -> bool {
        !self.all && self.keys.is_empty()
    }

    pub(in crate::broker) fn heap_bytes(&self) -> usize {
        self.keys.capacity() * (size_of::<Fingerprint>() + 1)
    }

    fn insert(&mut self, key: Fingerprint) {
        if !self.all {
            self.keys.insert(key);
            if self.keys.len() > MAX_CONTESTED {
                *self = Self { keys: HashSet::new(), all: true };
            }
        }
    }
}

impl LocalBroker {
    /// Whether there is a fingerprint that pages of different contents have.
    #[cfg(test)]
    pub(crate) fn has_contested(&self) -> bool {
        !self.contested.is_empty()
    }

    /// Forgets which fingerprints are contested while nothing stands under any name.
    pub(crate) fn forget_contested(&mut self) {
        if !self.contested.is_empty() && self.stable.node_count() == 0 && self.unstable.len() == 0 {
            self.contested = Contested::default();
        }
    }

    /// Notes that a page has the key of the slot that it was to share, and differs.
    pub(in crate::broker) fn note_difference(&mut self, item: ItemId, id: NodeId) {
        let key = self.stable.node(id).fingerprint;
        self.remove_item(item);
        self.decline(item, key);
    }

    /// Whether a page that is offered once more must be named: what has its key may differ from it.
    /// `declined` is the key under which it was found to differ last.
    pub(in crate::broker) fn must_be_named(
        &mut self,
        vm: VmId,
        key: Fingerprint,
        declined: Option<Fingerprint>,
    ) -> bool {
        let contested = declined == Some(key) || self.contested.contains(key);
        if contested {
            self.contest(vm, key);
        }
        contested
    }

    /// Takes pages in that are found by their names.
    pub(in crate::broker) fn decide_all_named(
        &mut self,
        vm: VmId,
        offers: &[NamedOffer],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), BrokerError> {
        let pages = offers.iter().map(|offer| offer.linear);
        let items: Vec<ItemId> = self.items(vm, pages)?.collect::<Result<_, _>>()?;
        for (offer, item) in offers.iter().zip(items) {
            let key = self.key(vm, offer.identity.key());
            let declined = self.rmap.item(item).declined();
            self.remove_item(item);
            let found = self.stable.find(key).map(|id| self.stable.node(id));
            let differs = found.is_some_and(|node| {
                node.filled_slot().is_some() && node.identity != offer.identity
            });
            decisions.push(if differs || declined == Some(key) {
                self.decline(item, key);
                Decision::Wait
            } else {
                self.decide(item, key)
            });
        }
        Ok(())
    }

    /// Puts a loose item on the unstable tree, or, where that would tell nothing, has its agent offer
    /// it again.
    pub(in crate::broker) fn wait_or_name(&mut self, item: ItemId, key: Fingerprint) -> bool {
        if !self.contested.contains(key) {
            return self.wait(item, key);
        }
        self.decline(item, key);
        self.direct(item);
        true
    }

    /// Gives a node that has just been filled the place that its name gives, if its fingerprint is
    /// contested.
    pub(in crate::broker) fn name_if_contested(&mut self, vm: VmId, id: NodeId) {
        if self.contested.contains(self.stable.node(id).fingerprint) {
            self.name_node(vm, id);
        }
    }

    /// Has everything that stands under a key be found by its name. What is not filled yet follows
    /// when it is. O(items and nodes under the key).
    fn contest(&mut self, vm: VmId, key: Fingerprint) {
        self.contested.insert(key);
        if let Some(waiting) = self.take_waiting(key) {
            self.wait_or_name(waiting, key);
        }
        for id in self.stable.nodes_of(key) {
            self.name_node(vm, id);
        }
    }

    fn name_node(&mut self, vm: VmId, id: NodeId) {
        let node = self.stable.node(id);
        if node.filled_slot().is_none() {
            return;
        }
        let key = self.key(vm, node.identity.key());
        if self.stable.set_key(id, key) && self.stable.has_room(id) {
            self.match_waiting(id);
        }
    }

    /// Notes with a loose item the key under which it is not to be looked for again.
    fn decline(&mut self, item: ItemId, key: Fingerprint) {
        self.end_put_off(item);
        if let RmapItem::Loose(age) = self.rmap.item(item) {
            self.rmap.set(item, RmapItem::Declined(key, age));
        }
    }
}
