//! Bytes for the slots of `Create` directives.

use crate::broker::LocalBroker;
use crate::broker::ids::{ItemId, NodeId};
use crate::broker::index::stable::node::Stage;
use crate::broker::rmap::Role;
use crate::fingerprint::{Fingerprint, IDENTITY_PART, Identity};
use crate::protocol::BrokerError;
use crate::{PAGE_SIZE, Slot, VmId};

/// What a slot is to be filled for.
struct Fill {
    slot: Slot,
    item: ItemId,
    node: NodeId,
    /// The identity of the bytes, unless they are not what the slot was meant for.
    identity: Option<Identity>,
}

impl LocalBroker {
    /// Writes the bytes of slots from `first` on; appends to `accepted` whether each page was. Those that
    /// follow each other are written at once. O(bytes + items of the slots' nodes · log VMs).
    ///
    /// # Errors
    ///
    /// When this is nothing that the VM was to fill, and nothing is changed; or when there is no memory, and
    /// the pages from the first one on that was not written are not accepted.
    pub(in crate::broker) fn fill_slots(
        &mut self,
        vm: VmId,
        first: Slot,
        pages: &[u8],
        accepted: &mut Vec<bool>,
    ) -> Result<(), BrokerError> {
        self.member_mut(vm)?;
        let (pages, rest) = pages.as_chunks::<PAGE_SIZE>();
        if !rest.is_empty() {
            return Err(BrokerError::BadLength(pages.len() * PAGE_SIZE + rest.len()));
        }
        let end = u32::try_from(pages.len()).ok().and_then(|count| first.0.checked_add(count));
        let slots = (first.0..end.ok_or(BrokerError::BadSlot { vm, slot: first })?).map(Slot);
        let creators: Vec<(ItemId, NodeId)> =
            slots.clone().map(|slot| self.creator(vm, slot)).collect::<Result<_, _>>()?;
        let hashes = self.hashes(pages);
        let fills = slots.zip(creators).zip(hashes).map(|((slot, (item, node)), hashes)| {
            let identity = self.fitting(vm, node, hashes);
            Fill { slot, item, node, identity }
        });
        let fills: Vec<Fill> = fills.collect();
        let (mut start, mut failure) = (0, None);
        for run in fills.chunk_by(|one, next| one.identity.is_some() == next.identity.is_some()) {
            let end = start + run.len();
            let mut filled_count = 0;
            if failure.is_none() && run[0].identity.is_some() {
                let (filled, result) = self.store.fill(run[0].slot, &pages[start..end]);
                (filled_count, failure) = (filled, result.err());
            }
            for (number, fill) in run.iter().enumerate() {
                let identity = fill.identity.filter(|_| number < filled_count);
                match identity {
                    Some(identity) => {
                        self.stable.node_mut(fill.node).fill(identity);
                        self.enqueue_deferred(fill.node);
                        self.rekey_if_contested(vm, fill.node);
                    }
                    None => self.remove_item(fill.item),
                }
                accepted.push(identity.is_some());
            }
            start = end;
        }
        failure.map_or(Ok(()), |error| Err(BrokerError::Store(error.into())))
    }

    /// The fingerprint and the identity of each page.
    fn hashes(&self, pages: &[[u8; PAGE_SIZE]]) -> Vec<(Fingerprint, Identity)> {
        let secret = &self.secret;
        let hash = |page: &[u8; PAGE_SIZE]| (secret.fingerprint(page), secret.identity(page));
        match &self.workers {
            Some(workers) => workers.map(pages, IDENTITY_PART, hash),
            None => pages.iter().map(hash).collect(),
        }
    }

    /// The identity of bytes that are to be a node's, if their fingerprint or identity gives the key that it is under.
    fn fitting(
        &self,
        vm: VmId,
        node: NodeId,
        (fingerprint, identity): (Fingerprint, Identity),
    ) -> Option<Identity> {
        let expected = self.stable.node(node).key;
        let keys = [fingerprint, identity.key()].map(|key| self.key(vm, key));
        keys.contains(&expected).then_some(identity)
    }

    /// The page of this VM that is to fill a slot.
    fn creator(&self, vm: VmId, slot: Slot) -> Result<(ItemId, NodeId), BrokerError> {
        let refused = BrokerError::BadSlot { vm, slot };
        let Some(id) = self.store.slots.node(slot) else { return Err(refused) };
        let node = self.stable.node(id);
        if node.stage() != Stage::Reserved || node.slot() != Some(slot) {
            return Err(refused);
        }
        self.items_in(id, Role::Creating)
            .find(|&item| self.rmap.page(item).0 == vm)
            .map(|item| (item, id))
            .ok_or(refused)
    }
}
