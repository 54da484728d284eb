//! Offers: where a calm page could go.

use super::LocalBroker;
use super::ids::ItemId;
use crate::VmId;
use crate::fingerprint::Fingerprint;
use crate::protocol::{BrokerError, Decision, Offer};

impl LocalBroker {
    pub(super) fn decide_all(
        &mut self,
        vm: VmId,
        offers: &[Offer],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), BrokerError> {
        let items: Vec<ItemId> =
            offers.iter().map(|offer| self.item(vm, offer.linear)).collect::<Result<_, _>>()?;
        decisions.reserve(offers.len());
        for (offer, item) in offers.iter().zip(items) {
            self.remove_item(item);
            decisions.push(self.decide(item, offer.fingerprint));
        }
        Ok(())
    }

    /// Looks a loose item's content up in the stable tree, then in the unstable one.
    fn decide(&mut self, item: ItemId, fingerprint: Fingerprint) -> Decision {
        if let Some(id) = self.stable.find(fingerprint) {
            let slot = self.stable.node(id).slot;
            self.stable.propose(&mut self.rmap, id, item, false);
            return Decision::Join(slot);
        }
        if self.wait(item, fingerprint) {
            return Decision::Wait;
        }
        let Some(slot) = self.store.slots.allocate() else {
            return Decision::Keep;
        };
        let Some(id) = self.stable.insert(fingerprint, slot) else {
            self.store.slots.release(slot);
            return Decision::Keep;
        };
        self.store.slots.set_node(slot, id);
        if let Some(twin) = self.take_waiting(fingerprint) {
            self.stable.propose(&mut self.rmap, id, twin, true);
            self.direct(twin);
        }
        self.stable.propose(&mut self.rmap, id, item, false);
        Decision::Create(slot)
    }
}
