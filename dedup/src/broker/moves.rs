//! Moving the sharers of one stable node to another: KSM's page migration, and how dups that have
//! become small are joined.
//!
//! While it lasts, both nodes are *closed*: no page joins either, so that the one is sure to drain
//! and the other to have room. Each sharer's agent is told to merge its page once more, with the
//! other slot; it compares and maps as always, and until it has done so the page goes on sharing
//! the slot that it has. A page that was written meanwhile is declined, and leaves when its agent
//! notices. The old node goes with its last sharer, as any node does.

use std::io;

use super::LocalBroker;
use super::ids::{ItemId, NodeId};
use super::rmap::{RmapItem, Role};
use crate::fingerprint::Identity;
use crate::{PAGE_SIZE, Slot};

/// Why the sharers of a slot are not being moved. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The slot has no bytes that anybody could share.
    #[error("slot {} holds nothing", .0.0)]
    Empty(Slot),
    /// Pages are about to join it, or its sharers are being moved already.
    #[error("slot {} is in use by a merge or a move; try again after the next pass", .0.0)]
    Busy(Slot),
    /// There is no other slot to move to.
    #[error("the store is full")]
    Full,
    /// Its bytes are not what they were when it was filled.
    #[error("slot {} has lost its bytes", .0.0)]
    Damaged(Slot),
    /// The store's file failed.
    #[error("the store's memory failed")]
    Store(#[source] io::Error),
}

impl LocalBroker {
    /// Begins to move every sharer of `slot` to a new slot with the same bytes, which is returned.
    /// [`directives`](crate::protocol::Broker::directives) have the sharers' agents do it.
    /// O(sharers).
    ///
    /// # Errors
    ///
    /// When the slot is empty, busy or damaged, or the store is full; nothing has changed.
    pub fn begin_move(&mut self, slot: Slot) -> Result<Slot, MoveError> {
        let page = self.intact_bytes(slot)?;
        let to = self.store.slots.allocate().ok_or(MoveError::Full)?;
        self.begin_move_to(slot, to, &page)
    }

    /// The bytes of a slot that can be moved, if they are still those that it was filled with.
    pub(super) fn intact_bytes(&self, slot: Slot) -> Result<[u8; PAGE_SIZE], MoveError> {
        let (_, identity) = self.movable(slot)?;
        let mut page = [0; PAGE_SIZE];
        self.store.memfd().read(slot, &mut page).map_err(MoveError::Store)?;
        if self.secret.identity(&page) == identity {
            Ok(page)
        } else {
            Err(MoveError::Damaged(slot))
        }
    }

    /// Begins to move every sharer of `slot` to the slot `to`, which was allocated for it, and which
    /// is filled with `page`. On an error `to` is free again.
    pub(super) fn begin_move_to(
        &mut self,
        slot: Slot,
        to: Slot,
        page: &[u8; PAGE_SIZE],
    ) -> Result<Slot, MoveError> {
        let from = self.begin_quietly(slot, to, page)?;
        self.direct_sharers(from);
        Ok(to)
    }

    /// The same, but no agent is told; returns the node that is left.
    pub(super) fn begin_quietly(
        &mut self,
        slot: Slot,
        to: Slot,
        page: &[u8; PAGE_SIZE],
    ) -> Result<NodeId, MoveError> {
        match self.open_target(slot, to, page) {
            Ok((from, target)) => {
                self.begin(from, target);
                Ok(from)
            }
            Err(error) => {
                self.store.free(to);
                self.store.flush();
                Err(error)
            }
        }
    }

    /// Makes a node at `to` for what is in `slot`.
    fn open_target(
        &mut self,
        slot: Slot,
        to: Slot,
        page: &[u8; PAGE_SIZE],
    ) -> Result<(NodeId, NodeId), MoveError> {
        let (from, identity) = self.movable(slot)?;
        self.store.fill(to, page).map_err(MoveError::Store)?;
        let fingerprint = self.stable.node(from).fingerprint;
        self.stable.set_closed(from, true);
        let Some(target) = self.stable.insert(fingerprint) else {
            self.stable.set_closed(from, false);
            return Err(MoveError::Full);
        };
        self.store.slots.set_node(to, target);
        let paired = self.stable.node(from).paired;
        let node = self.stable.node_mut(target);
        node.reserve(to);
        node.fill(identity);
        node.paired = paired;
        Ok((from, target))
    }

    /// Allows every sharer of `from` to move to `target`, another dup of its content, which has room
    /// for all of them.
    pub(super) fn begin(&mut self, from: NodeId, target: NodeId) {
        self.stable.set_closed(from, true);
        self.stable.set_closed(target, true);
        self.moves.insert(from, target);
    }

    /// Whether a node may take part in a move: it is filled, and nothing is being done about it.
    pub(super) fn is_movable(&self, id: NodeId) -> bool {
        let node = self.stable.node(id);
        node.filled_slot().is_some() && node.pending == 0 && !node.closed
    }

    pub(super) fn movable(&self, slot: Slot) -> Result<(NodeId, Identity), MoveError> {
        let id = self.store.slots.node(slot).ok_or(MoveError::Empty(slot))?;
        let node = self.stable.node(id);
        if !self.is_movable(id) {
            return Err(MoveError::Busy(slot));
        }
        Ok((id, node.identity))
    }

    /// Moves that are under way.
    pub fn count_moves(&self) -> usize {
        self.moves.len()
    }

    /// Asks again for what is left of all moves: pages may have been refused for lack of memory.
    /// O(sharers that are left).
    pub fn resume_moves(&mut self) {
        let from: Vec<NodeId> = self.moves.keys().copied().collect();
        for id in from {
            self.direct_sharers(id);
        }
    }

    /// Where a sharer of a node is to go instead.
    pub(super) fn move_target(&self, from: NodeId) -> Option<(NodeId, Slot)> {
        let &target = self.moves.get(&from)?;
        Some((target, self.stable.node(target).filled_slot()?))
    }

    /// Whether sharers are being moved to a node.
    pub(super) fn is_target(&self, id: NodeId) -> bool {
        self.stable.node(id).closed && !self.moves.contains_key(&id)
    }

    /// Makes a sharer of a node a sharer of the one it is to go to.
    pub(super) fn transfer(&mut self, item: ItemId, target: NodeId) {
        let from = self.stable.unlink(&mut self.rmap, item);
        self.stable.propose(&mut self.rmap, target, item, Role::Joining);
        self.stable.confirm(&mut self.rmap, item);
        if let Some(from) = from {
            self.settle_node(from);
        }
    }

    /// Ends the move that a node, which is gone, was left by. The other one takes items again.
    pub(super) fn end_move(&mut self, from: NodeId) {
        let Some(target) = self.moves.remove(&from) else { return };
        self.stable.set_closed(target, false);
        if self.stable.has_room(target) {
            self.invite(target);
        }
        self.settle_node(target);
    }

    /// Has the agents of a node's sharers ask what to do.
    pub(super) fn direct_sharers(&mut self, id: NodeId) {
        let items: Vec<ItemId> = self.stable.items(&self.rmap, id).collect();
        for item in items {
            if let RmapItem::Stable(_) = self.rmap.item(item) {
                self.direct(item);
            }
        }
    }
}
