//! Offers: which tree a private page is put in that has not changed since the last pass.
//! KSM: `cmp_and_merge_page()`.

mod by_identity;

use super::LocalBroker;
use super::ids::ItemId;
use super::rmap::{RmapItem, Role};
use crate::VmId;
use crate::fingerprint::Fingerprint;
use crate::protocol::{BrokerError, Decision, Offer};

impl LocalBroker {
    /// Decides on each page that is offered, after taking it out of the trees, and appends the decision. O(log VMs)
    /// expected an offer, but for what [taking it out](Self::remove_item) costs, and for what is moved to other keys when
    /// a fingerprint comes to be contested.
    ///
    /// # Errors
    ///
    /// An unknown VM or page; nothing was done.
    pub(super) fn decide_all(
        &mut self,
        vm: VmId,
        offers: &[Offer],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), BrokerError> {
        let pages = offers.iter().map(|offer| offer.linear);
        let items: Vec<ItemId> = self.items(vm, pages)?.collect::<Result<_, _>>()?;
        decisions.reserve(offers.len());
        for (offer, item) in offers.iter().zip(items) {
            let key = self.key(vm, offer.fingerprint);
            if let Some(decision) = self.retake_place(item, key) {
                decisions.push(decision);
                continue;
            }
            let collided = self.loosen(item);
            decisions.push(if self.needs_identity(vm, key, collided) {
                Decision::Identify
            } else {
                self.decide(item, key)
            });
        }
        Ok(())
    }

    /// Takes an item out of the trees; returns the key under which it was found to differ, if it was. An offer is
    /// also the outcome of a directive to move the page: who offers a page must not execute one for it any more.
    fn loosen(&mut self, item: ItemId) -> Option<Fingerprint> {
        let state = self.rmap.item(item);
        if matches!(state, RmapItem::Stable(_)) {
            let (vm, linear) = self.rmap.page(item);
            self.acknowledge(vm, linear, 1);
        }
        // Nothing is to be done for most.
        if !matches!(state, RmapItem::Loose(_)) || self.deferred_count > 0 {
            self.remove_item(item);
        }
        state.collided_key()
    }

    /// Looks a loose item's content up in the stable tree, and where no node of it has room, in the
    /// unstable one.
    pub(super) fn decide(&mut self, item: ItemId, key: Fingerprint) -> Decision {
        if let Some(id) = self.stable.find(key) {
            if let Some(slot) = self.stable.node(id).filled_slot() {
                self.stable.propose(&mut self.rmap, id, item, Role::Joining);
                return Decision::Join(slot);
            }
            self.propose(id, item);
            return Decision::Wait;
        }
        if self.wait(item, key) {
            return Decision::Wait;
        }
        let Some(id) = self.stable.insert(key) else {
            return Decision::Keep;
        };
        if let Some(twin) = self.take_waiting(key) {
            self.propose(id, twin);
        }
        self.propose(id, item);
        Decision::Wait
    }
}
