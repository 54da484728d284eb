//! Offers of pages whose fingerprints do not tell them from others, by their identities.

use crate::VmId;
use crate::broker::LocalBroker;
use crate::broker::ids::{ItemId, NodeId};
use crate::broker::index::contested::Contested;
use crate::fingerprint::Fingerprint;
use crate::protocol::{BrokerError, Decision, IdentityOffer};

impl LocalBroker {
    /// Whether there is a fingerprint that pages of different contents have.
    #[cfg(test)]
    pub(crate) fn has_contested(&self) -> bool {
        !self.contested.is_empty()
    }

    /// Clears the set of contested fingerprints while nothing is in the trees.
    pub(crate) fn clear_contested(&mut self) {
        if !self.contested.is_empty() && self.stable.node_count() == 0 && self.unstable.len() == 0 {
            self.contested = Contested::default();
        }
    }

    /// Notes that a page has the key of the slot that it was to share, and differs.
    pub(in crate::broker) fn note_difference(&mut self, item: ItemId, id: NodeId) {
        let key = self.stable.node(id).key;
        self.remove_item(item);
        self.set_collided(item, key);
    }

    /// Whether a page that is offered must be offered by its identity: what has its key may differ from it.
    /// `collided` is the key under which it was found to differ last.
    pub(in crate::broker) fn needs_identity(
        &mut self,
        vm: VmId,
        key: Fingerprint,
        collided: Option<Fingerprint>,
    ) -> bool {
        let contested = collided == Some(key) || self.contested.contains(key);
        if contested {
            self.contest(vm, key);
        }
        contested
    }

    /// Decides on pages that are offered by their identities, as [`decide_all`](Self::decide_all) does.
    ///
    /// # Errors
    ///
    /// An unknown VM or page; nothing was done.
    pub(in crate::broker) fn decide_all_by_identity(
        &mut self,
        vm: VmId,
        offers: &[IdentityOffer],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), BrokerError> {
        let pages = offers.iter().map(|offer| offer.linear);
        let items: Vec<ItemId> = self.items(vm, pages)?.collect::<Result<_, _>>()?;
        for (offer, item) in offers.iter().zip(items) {
            let key = self.key(vm, offer.identity.key());
            let collided = self.loosen(item);
            let found = self.stable.find(key).map(|id| self.stable.node(id));
            let differs = found.is_some_and(|node| {
                node.filled_slot().is_some() && node.identity != offer.identity
            });
            decisions.push(if differs || collided == Some(key) {
                self.set_collided(item, key);
                Decision::Wait
            } else {
                self.decide(item, key)
            });
        }
        Ok(())
    }

    /// Puts a node that has just been filled under the key of its identity, if its fingerprint is contested.
    pub(in crate::broker) fn rekey_if_contested(&mut self, vm: VmId, id: NodeId) {
        if self.contested.contains(self.stable.node(id).key) {
            self.rekey(vm, id);
        }
    }

    /// Puts everything under a key that is contested under the key of its identity. A node that is not filled yet
    /// follows when it is. O(items and nodes under the key).
    fn contest(&mut self, vm: VmId, key: Fingerprint) {
        self.contested.insert(key);
        if let Some(waiting) = self.take_waiting(key) {
            self.wait_or_reoffer(waiting, key);
        }
        for id in self.stable.nodes_of(key) {
            self.rekey(vm, id);
        }
    }

    fn rekey(&mut self, vm: VmId, id: NodeId) {
        let node = self.stable.node(id);
        if node.filled_slot().is_none() {
            return;
        }
        let key = self.key(vm, node.identity.key());
        if self.stable.set_key(id, key) && self.stable.has_room(id) {
            self.propose_waiting(id);
        }
    }
}
