//! Bytes for new slots.

use crate::broker::LocalBroker;
use crate::broker::ids::{ItemId, NodeId};
use crate::broker::index::stable::node::Stage;
use crate::broker::rmap::Role;
use crate::fingerprint::{Fingerprint, Identity, NAMED_PART};
use crate::protocol::BrokerError;
use crate::{PAGE_SIZE, Slot, VmId};

/// What a slot is to be filled for.
struct Fill {
    slot: Slot,
    item: ItemId,
    node: NodeId,
    /// The name of the bytes, unless they are not what the slot was meant for.
    name: Option<Identity>,
}

impl LocalBroker {
    /// Writes the bytes of slots from `first` on; appends to `accepted` whether each page was. Those that
    /// follow each other are written at once.
    ///
    /// # Errors
    ///
    /// When this is nothing that the VM was to fill, and nothing is changed; or when there is no memory, and
    /// the pages from the first one on that was not written are not accepted.
    pub(in crate::broker) fn fill_all(
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
        let names = self.names(pages);
        let fills = slots.zip(creators).zip(names).map(|((slot, (item, node)), name)| {
            let name = self.fitting(vm, node, name);
            Fill { slot, item, node, name }
        });
        let fills: Vec<Fill> = fills.collect();
        let (mut start, mut failure) = (0, None);
        for run in fills.chunk_by(|one, next| one.name.is_some() == next.name.is_some()) {
            let end = start + run.len();
            let mut filled_count = 0;
            if failure.is_none() && run[0].name.is_some() {
                let (filled, result) = self.store.fill(run[0].slot, &pages[start..end]);
                (filled_count, failure) = (filled, result.err());
            }
            for (number, fill) in run.iter().enumerate() {
                let name = fill.name.filter(|_| number < filled_count);
                match name {
                    Some(name) => {
                        self.stable.node_mut(fill.node).fill(name);
                        self.direct_put_off(fill.node);
                        self.name_if_contested(vm, fill.node);
                    }
                    None => self.remove_item(fill.item),
                }
                accepted.push(name.is_some());
            }
            start = end;
        }
        failure.map_or(Ok(()), |error| Err(BrokerError::Store(error.into())))
    }

    /// The fingerprint and the name of each page.
    fn names(&self, pages: &[[u8; PAGE_SIZE]]) -> Vec<(Fingerprint, Identity)> {
        let secret = &self.secret;
        let name = |page: &[u8; PAGE_SIZE]| (secret.fingerprint(page), secret.identity(page));
        match &self.workers {
            Some(workers) => workers.map(pages, NAMED_PART, name),
            None => pages.iter().map(name).collect(),
        }
    }

    /// The name of bytes that are to be a node's, if they have what it stands under.
    fn fitting(
        &self,
        vm: VmId,
        node: NodeId,
        (fingerprint, name): (Fingerprint, Identity),
    ) -> Option<Identity> {
        let expected = self.stable.node(node).fingerprint;
        let keys = [fingerprint, name.key()].map(|key| self.key(vm, key));
        keys.contains(&expected).then_some(name)
    }

    /// The page of this VM whose bytes a slot waits for.
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
