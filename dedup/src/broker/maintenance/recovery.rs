//! What a broker can do about a slot whose memory has failed.
//!
//! Its node is *lost*: no page is directed to join it, or to move off it, as either takes a comparison with
//! bytes that must not be read. Pages of the same content that are offered later share another node,
//! of which the lost one may be recovered.

use std::collections::BTreeSet;

use crate::broker::LocalBroker;
use crate::broker::ids::{ItemId, NodeId};
use crate::broker::index::stable::node::StableNode;
use crate::broker::rmap::RmapItem;
use crate::fingerprint::{Fingerprint, Identity};
use crate::protocol::{Copies, MoveError};
use crate::{PAGE_SIZE, Slot};

impl LocalBroker {
    /// Where the bytes of a slot may be found once more; `None` when it holds nothing.
    /// O(dups and their items).
    pub(crate) fn copies(&self, slot: Slot) -> Option<Copies> {
        let id = self.store.slots.node(slot)?;
        let node = self.stable.node(id);
        node.filled_slot()?;
        let nodes = self.stable.nodes_of(node.key);
        let others = nodes.iter().filter(|&&dup| dup != id).map(|&dup| self.stable.node(dup));
        let equal = others.filter(|dup| dup.identity == node.identity && !dup.lost);
        let items = nodes.iter().flat_map(|&dup| self.stable.items(&self.rmap, dup));
        let proposed =
            items.filter(|&item| matches!(self.rmap.item(item), RmapItem::Proposed { .. }));
        let waiting = self.unstable.find(&self.rmap, node.key);
        Some(Copies {
            identity: node.identity,
            dups: equal.filter_map(StableNode::filled_slot).collect(),
            private: waiting.into_iter().chain(proposed).map(|item| self.rmap.page(item)).collect(),
        })
    }

    /// Notes that the memory of a slot has failed: no directive names it any more. Does nothing
    /// if that is known. O(moves + slots that are lost + items of the slot, and of the one whose sharers are being moved
    /// to it, · log VMs).
    ///
    /// # Errors
    ///
    /// When the slot is empty, or is left empty, as pages were only to join it; and while an agent
    /// has not answered that was directed to move a page to it, which must report first: then nothing
    /// has changed.
    pub fn mark_lost(&mut self, slot: Slot) -> Result<(), MoveError> {
        let id = self.filled(slot)?;
        if self.is_target(id) {
            let mut moves = self.moves.iter();
            let from = moves.find(|(_, begun)| begun.target == id).map(|(&from, _)| from);
            if let Some(from) = from {
                if self.awaits_ack(from) {
                    return Err(MoveError::Busy(slot));
                }
                // Those that have not come yet stay where they are.
                self.cancel_move(from);
                self.store.flush();
                self.filled(slot)?;
            }
        }
        self.stable.node_mut(id).lost = true;
        self.stable.set_closed(id, true);
        let mut lost: BTreeSet<Slot> = self.lost_slots().collect();
        lost.insert(slot);
        self.lost = lost;
        // No agent has a directive for these: they can be proposed to another node.
        let undirected: Vec<ItemId> = self.undirected_items(id).collect();
        for item in undirected {
            self.take_off_node(item);
            self.repropose(item, self.stable.node(id).key);
        }
        self.dissolve_or_unshare_node(id);
        self.store.flush();
        self.filled(slot).map(drop)
    }

    /// Slots whose memory is known to have failed and that are in use still, ascending.
    pub(crate) fn lost_slots(&self) -> impl Iterator<Item = Slot> + '_ {
        let is_lost = |slot| {
            let node = self.store.slots.node(slot);
            node.is_some_and(|id| self.stable.node(id).lost)
        };
        self.lost.iter().copied().filter(move |&slot| is_lost(slot))
    }

    /// The node of a slot that holds bytes.
    fn filled(&self, slot: Slot) -> Result<NodeId, MoveError> {
        self.filled_node(slot).ok_or(MoveError::Empty(slot))
    }

    /// Proposes a loose item for which its agent has no directive to another node of its content, or puts it on the
    /// unstable tree.
    fn repropose(&mut self, item: ItemId, key: Fingerprint) {
        if let Some(dup) = self.stable.find(key) {
            self.propose(dup, item);
        } else if !self.wait_or_reoffer(item, key)
            && let Some(dup) = self.stable.insert(key)
        {
            // If node ids have run out, it stays loose until its page changes.
            if let Some(twin) = self.take_waiting(key) {
                self.propose(dup, twin);
            }
            self.propose(dup, item);
        }
    }

    /// Begins to move every sharer of a slot that has failed to another, which is returned: the one
    /// that they are being moved to already, or a new one, which is filled with `page`. No agent gets
    /// a directive: whoever calls this has the pages mapped by `Agent::replace_slot`, which does not compare them,
    /// and does so again for what is left of [`recoveries`](Self::recoveries). As [`mark_lost`](Self::mark_lost), and
    /// about 2 µs to hash `page`.
    ///
    /// `Agent::replace_slot` replaces only a page that still maps the store, as it finds under write protection
    /// (`Agent::replace_page`). A page that the guest has written has its own copy, and keeps it: its agent reports
    /// it as `Broken`.
    ///
    /// # Errors
    ///
    /// As for [`mark_lost`](Self::mark_lost); and when `page` is not what the slot was filled with, or
    /// the store is full: then the slot is marked as lost, and nothing else has changed.
    pub fn begin_recovery(
        &mut self,
        slot: Slot,
        page: &[u8; PAGE_SIZE],
    ) -> Result<Slot, MoveError> {
        self.mark_lost(slot)?;
        let from = self.filled(slot)?;
        if let Some((_, to)) = self.move_target(from) {
            return Ok(to);
        }
        if !self.has_identity(page, self.stable.node(from).identity) {
            return Err(MoveError::Damaged(slot));
        }
        let to = self.store.slots.allocate().ok_or(MoveError::Full)?;
        self.begin_move_to(from, to, page)?;
        self.store.flush();
        Ok(to)
    }

    /// Slots that are lost and whose sharers could not all be mapped to another, and that other slot.
    /// O(moves).
    pub fn recoveries(&self) -> Vec<(Slot, Slot)> {
        let lost = self.moves.keys().map(|&from| (from, self.stable.node(from)));
        let lost = lost.filter(|(_, node)| node.lost);
        lost.filter_map(|(from, node)| Some((node.filled_slot()?, self.move_target(from)?.1)))
            .collect()
    }

    /// The bytes that a slot holds, if they are those that it was filled with.
    pub(crate) fn read(&self, slot: Slot, identity: Identity) -> Option<[u8; PAGE_SIZE]> {
        let mut page = [0; PAGE_SIZE];
        self.store.memfd().read(slot, &mut page).ok()?;
        self.has_identity(&page, identity).then_some(page)
    }

    /// Whether a page's bytes have this identity.
    pub(crate) fn has_identity(&self, page: &[u8; PAGE_SIZE], identity: Identity) -> bool {
        self.secret.identity(page) == identity
    }

    /// Loses the bytes of a slot, as failing hardware does.
    #[cfg(test)]
    pub(crate) fn lose(&self, slot: Slot) {
        let lost = self.store.memfd().punch(slot, 1);
        lost.unwrap_or_else(|error| panic!("{slot:?} cannot be lost: {error}"));
    }
}
