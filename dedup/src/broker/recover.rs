//! What a broker can do about a slot whose memory has failed.

use super::LocalBroker;
use super::moves::MoveError;
use super::stable_node::StableNode;
use crate::fingerprint::Identity;
use crate::{LinearIndex, PAGE_SIZE, Slot, VmId};

/// Where the bytes of a slot may be found once more.
#[derive(Debug)]
pub(crate) struct Copies {
    /// What they must be.
    pub(crate) identity: Identity,
    /// Other slots of the same bytes.
    pub(crate) dups: Vec<Slot>,
    /// A page that waits for room to share them.
    pub(crate) waiting: Option<(VmId, LinearIndex)>,
}

impl LocalBroker {
    /// Where the bytes of a slot may be found once more; `None` when it holds nothing.
    /// O(dups).
    pub(crate) fn copies(&self, slot: Slot) -> Option<Copies> {
        let id = self.store.slots.node(slot)?;
        let node = self.stable.node(id);
        node.filled_slot()?;
        let others = self.stable.nodes_of(node.fingerprint).into_iter().filter(|&dup| dup != id);
        let equal = others.map(|dup| self.stable.node(dup));
        let equal = equal.filter(|dup| dup.identity == node.identity);
        let waiting = self.unstable.find(&self.rmap, node.fingerprint);
        Some(Copies {
            identity: node.identity,
            dups: equal.filter_map(StableNode::filled_slot).collect(),
            waiting: waiting.map(|item| self.rmap.page(item)),
        })
    }

    /// Begins to move every sharer of a slot that has failed to a new one, which is filled with
    /// `page`. No agent is told: whoever calls this maps the pages, without looking at them.
    ///
    /// # Errors
    ///
    /// When the slot is empty or busy, `page` is not what it was filled with, or the store is full;
    /// nothing has changed.
    pub(crate) fn begin_recovery(
        &mut self,
        slot: Slot,
        page: &[u8; PAGE_SIZE],
    ) -> Result<Slot, MoveError> {
        let (_, identity) = self.movable(slot)?;
        if !self.is_named(page, identity) {
            return Err(MoveError::Damaged(slot));
        }
        let to = self.store.slots.allocate().ok_or(MoveError::Full)?;
        self.begin_quietly(slot, to, page)?;
        Ok(to)
    }

    /// The bytes that a slot holds, if they are those that it was filled with.
    pub(crate) fn read(&self, slot: Slot, identity: Identity) -> Option<[u8; PAGE_SIZE]> {
        let mut page = [0; PAGE_SIZE];
        self.store.memfd().read(slot, &mut page).ok()?;
        self.is_named(&page, identity).then_some(page)
    }

    /// Whether a page's bytes are those of this name.
    pub(crate) fn is_named(&self, page: &[u8; PAGE_SIZE], identity: Identity) -> bool {
        self.secret.identity(page) == identity
    }

    /// Whether pages of these bytes are shared here, or one waits. O(1) expected.
    pub(crate) fn knows(&self, page: &[u8; PAGE_SIZE]) -> bool {
        let fingerprint = self.secret.fingerprint(page);
        !self.stable.nodes_of(fingerprint).is_empty()
            || self.unstable.find(&self.rmap, fingerprint).is_some()
    }

    /// Loses the bytes of a slot, as failing hardware does.
    #[cfg(test)]
    pub(crate) fn lose(&self, slot: Slot) {
        let lost = self.store.memfd().punch(slot, 1);
        lost.unwrap_or_else(|error| panic!("{slot:?} cannot be lost: {error}"));
    }
}
