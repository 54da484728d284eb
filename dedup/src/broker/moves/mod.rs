//! Moving the sharers of one stable node to another: KSM's page migration, and how dups that have
//! become small are joined.
//!
//! During a move both nodes are *closed*: no page joins either, so that the source drains and the target has room.
//! Each sharer's agent is directed to merge its page once more, with the target's slot. It compares and maps as for
//! any merge; until then the page shares the slot that it has. A page that was written meanwhile is declined, and
//! is taken off the list when its agent reports it as broken. The source is removed with its last sharer, as any node
//! is. A move that does not end so is given up: see `end`.

mod end;

use std::slice;

use crate::broker::LocalBroker;
use crate::broker::ids::{ItemId, NodeId};
use crate::broker::life_cycle::Move;
use crate::broker::rmap::{RmapItem, Role};
use crate::fingerprint::Identity;
use crate::protocol::{BrokerError, Directive, MoveError};
use crate::{LinearIndex, PAGE_SIZE, Slot, VmId};

impl LocalBroker {
    /// Begins to move every sharer of `slot` to a new slot with the same bytes, which is returned.
    /// [`move_directives`](Self::move_directives) have the sharers' agents do it, or, after
    /// [`enqueue_moves`](Self::enqueue_moves), [`directives`](crate::protocol::Broker::directives).
    /// O(1) expected.
    ///
    /// # Errors
    ///
    /// When the slot is empty, busy or damaged, or the store is full; nothing has changed.
    pub fn begin_move(&mut self, slot: Slot) -> Result<Slot, MoveError> {
        let (from, page) = self.intact_bytes(slot)?;
        let to = self.store.slots.allocate().ok_or(MoveError::Full)?;
        self.begin_move_to(from, to, &page)?;
        Ok(to)
    }

    /// The node of a slot that can be moved, and its bytes, if they are still those that it was
    /// filled with. O(1): about 2 µs, to hash them.
    pub(in crate::broker) fn intact_bytes(
        &self,
        slot: Slot,
    ) -> Result<(NodeId, [u8; PAGE_SIZE]), MoveError> {
        let (from, identity) = self.movable(slot)?;
        let mut page = [0; PAGE_SIZE];
        self.store.memfd().read(slot, &mut page).map_err(|error| MoveError::Store(error.into()))?;
        if self.secret.identity(&page) == identity {
            Ok((from, page))
        } else {
            Err(MoveError::Damaged(slot))
        }
    }

    /// Begins to move every sharer of `from` to the slot `to`, which was allocated for it, and which
    /// is filled with `page`: what `from` holds. On an error `to` is free again.
    pub(in crate::broker) fn begin_move_to(
        &mut self,
        from: NodeId,
        to: Slot,
        page: &[u8; PAGE_SIZE],
    ) -> Result<(), MoveError> {
        match self.make_target(from, to, page) {
            Ok(target) => {
                self.start_move_between(from, target);
                Ok(())
            }
            Err(error) => {
                self.store.queue_free(to);
                self.store.flush();
                Err(error)
            }
        }
    }

    /// Makes a node at `to` for what `from` holds, and closes `from`. On an error `from` is as it was.
    fn make_target(
        &mut self,
        from: NodeId,
        to: Slot,
        page: &[u8; PAGE_SIZE],
    ) -> Result<NodeId, MoveError> {
        self.store
            .fill(to, slice::from_ref(page))
            .1
            .map_err(|error| MoveError::Store(error.into()))?;
        let (key, identity, keeps_lone_sharer) = {
            let node = self.stable.node(from);
            (node.key, node.identity, node.keeps_lone_sharer)
        };
        self.stable.set_closed(from, true);
        let Some(target) = self.stable.insert(key) else {
            self.stable.set_closed(from, self.stable.node(from).lost);
            return Err(MoveError::Full);
        };
        self.store.slots.set_node(to, target);
        let node = self.stable.node_mut(target);
        node.reserve(to);
        node.fill(identity);
        node.keeps_lone_sharer = keeps_lone_sharer;
        Ok(target)
    }

    /// Allows every sharer of `from` to move to `target`, another dup of its content, which has room
    /// for all of them.
    pub(in crate::broker) fn start_move_between(&mut self, from: NodeId, target: NodeId) {
        self.stable.set_closed(from, true);
        self.stable.set_closed(target, true);
        self.moves.insert(from, Move { target, was_enqueued: false });
    }

    /// Whether a node may take part in a move: it is filled and not closed, and nothing is proposed to it.
    pub(in crate::broker) fn is_movable(&self, id: NodeId) -> bool {
        let node = self.stable.node(id);
        node.filled_slot().is_some() && node.proposed == 0 && !node.closed
    }

    fn movable(&self, slot: Slot) -> Result<(NodeId, Identity), MoveError> {
        let id = self.store.slots.node(slot).ok_or(MoveError::Empty(slot))?;
        let node = self.stable.node(id);
        if node.lost {
            return Err(MoveError::Damaged(slot));
        }
        if !self.is_movable(id) {
            return Err(MoveError::Busy(slot));
        }
        Ok((id, node.identity))
    }

    /// Moves that are under way.
    #[cfg(any(test, feature = "internals"))]
    pub fn move_count(&self) -> usize {
        self.moves.len()
    }

    /// Enqueues the sharers that have not moved yet, of all moves: those of moves that were just begun, and those
    /// that the kernel or the budget did not map. Sharers of lost slots are left out, as their agents would compare
    /// them: see [`recoveries`](Self::recoveries). O(sharers that are left).
    pub fn enqueue_moves(&mut self) {
        let all = self.moves.keys().copied();
        let from: Vec<NodeId> = all.filter(|&id| !self.stable.node(id).lost).collect();
        for id in from {
            if let Some(begun) = self.moves.get_mut(&id) {
                begun.was_enqueued = true;
            }
            self.enqueue_sharers(id);
        }
    }

    /// Appends to `directives` one for each of a VM's `pages`, which ascend, whose slot is being moved, and none for
    /// others: a single slot can be moved without a poll. O(pages · log moves).
    ///
    /// # Errors
    ///
    /// An unknown VM or page; nothing was done.
    pub fn move_directives(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        directives: &mut Vec<Directive>,
    ) -> Result<(), BrokerError> {
        let items: Vec<ItemId> =
            self.items(vm, pages.iter().copied())?.collect::<Result<_, _>>()?;
        for (item, &linear) in items.into_iter().zip(pages) {
            if let Some(slot) = self.direct_to_move(item) {
                directives.push(Directive::Merge { linear, slot, awaited: false });
            }
        }
        Ok(())
    }

    /// The slot that an item is to be moved to, if its node is the source of a move. The caller sends its agent the
    /// directive. Until the outcome is reported the slot must not be freed, so the page is `awaiting_ack`.
    pub(in crate::broker) fn direct_to_move(&mut self, item: ItemId) -> Option<Slot> {
        let RmapItem::Stable(link) = self.rmap.item(item) else { return None };
        if self.stable.node(link.node).lost {
            // The agent would compare it, and so read failed memory.
            return None;
        }
        let (_, slot) = self.move_target(link.node)?;
        let (_, linear) = self.rmap.page(item);
        self.owner_mut(item).awaiting_ack.insert(linear);
        Some(slot)
    }

    /// Notes that an agent has reported the outcomes of pages, if it was directed to move them.
    pub(in crate::broker) fn acknowledge(
        &mut self,
        vm: VmId,
        linear: LinearIndex,
        page_count: u32,
    ) {
        let Some(member) =
            self.members.get_mut(&vm).filter(|member| !member.awaiting_ack.is_empty())
        else {
            return;
        };
        for offset in 0..page_count {
            member.awaiting_ack.remove(&linear.offset(offset));
        }
    }

    /// The target of the move from a node, if there is one, and its slot.
    pub(in crate::broker) fn move_target(&self, from: NodeId) -> Option<(NodeId, Slot)> {
        let target = self.moves.get(&from)?.target;
        Some((target, self.stable.node(target).filled_slot()?))
    }

    /// Makes a sharer of a move's source one of its target. O(log VMs + log moves).
    pub(in crate::broker) fn transfer(&mut self, item: ItemId, target: NodeId) {
        let from = self.stable.unlink(&mut self.rmap, item);
        self.stable.propose(&mut self.rmap, target, item, Role::Joining);
        self.stable.confirm(&mut self.rmap, item);
        if let Some(from) = from {
            self.dissolve_or_unshare_node(from);
        }
    }

    /// Enqueues all sharers of a node. O(items of the node · log VMs).
    pub(in crate::broker) fn enqueue_sharers(&mut self, id: NodeId) {
        let sharers: Vec<ItemId> = self.sharers(id).collect();
        for item in sharers {
            self.enqueue(item);
        }
    }
}
