//! What follows for a stable node when an item has left its list, or has become a sharer.

use crate::broker::LocalBroker;
use crate::broker::ids::{ItemId, NodeId};
use crate::broker::index::stable::node::Stage;
use crate::broker::rmap::{RmapItem, Role};

impl LocalBroker {
    /// Removes a node that is of no use any more, or has its lone sharer made private if that is not to stay; then the
    /// same for the node that its sharers were moved to. To be called when an item has left a node's list, was deferred,
    /// or has become its sharer, whose partners may have declined before. O(log VMs + log moves), or, if its slot is
    /// reserved and nobody shares it yet, O(items of the node · log VMs).
    pub(in crate::broker) fn dissolve_or_unshare_node(&mut self, id: NodeId) {
        // The target of a move is the source of none, so there are two at most.
        let mut next = Some(id);
        while let Some(id) = next {
            next = self.dissolve_or_unshare(id);
        }
    }

    /// Does so with one node; returns the target of its move, which is next, if that has ended.
    fn dissolve_or_unshare(&mut self, id: NodeId) -> Option<NodeId> {
        if self.is_target(id) {
            // Sharers are about to be moved to it.
            return None;
        }
        let node = self.stable.node(id);
        if node.sharers > 0 {
            // The break_cow rule: a page that was merged for a partner that was then declined is made
            // private again at once. It keeps its item until its agent has done so.
            if self.has_sharer_to_unshare(id) {
                let sharer = self.stable.items(&self.rmap, id).next();
                if let Some(sharer) = sharer {
                    self.enqueue(sharer);
                }
            }
            return None;
        }
        if node.stage() == Stage::Reserved && !self.has_creator(id) {
            self.abandon_slot(id);
        }
        let node = self.stable.node(id);
        let least = if node.stage() == Stage::Matched { 2 } else { 1 };
        if node.proposed < least { self.dissolve(id) } else { None }
    }

    /// Takes back a slot that will not be filled. Other pages of its creator's VM that were directed to join it, in the
    /// same batch, are loose, and will be declined. Undirected items are due if they are not deferred: one of them may
    /// fill another slot. O(items of the node · log VMs).
    fn abandon_slot(&mut self, id: NodeId) {
        self.release_slot(id);
        let joining: Vec<ItemId> = self.items_in(id, Role::Joining).collect();
        for item in joining {
            self.take_off_node(item);
            if self.stable.has_gained_room(id) {
                self.propose_waiting(id);
            }
        }
        let undirected: Vec<ItemId> =
            self.items_in(id, Role::Undirected).filter(|&item| !self.is_deferred(item)).collect();
        for item in undirected {
            self.enqueue(item);
        }
    }

    /// Removes a node that nobody shares: a filled one without items, or a matched one with one item at most, which
    /// waits on the unstable tree again. Returns the target of the node's move, if it had one. O(log VMs + log moves).
    fn dissolve(&mut self, id: NodeId) -> Option<NodeId> {
        self.release_slot(id);
        let key = self.stable.node(id).key;
        let last = self.stable.items(&self.rmap, id).next();
        // What is proposed to a matched node has no directive yet, so its agent need not be sent anything.
        if let Some(item) = last {
            self.take_off_node(item);
        }
        self.stable.remove(id);
        let target = self.finish_move(id);
        let Some(item) = last else { return target };
        // Another dup may have room by now.
        if let Some(dup) = self.stable.find(key) {
            self.propose(dup, item);
        } else {
            self.wait_or_reoffer(item, key);
        }
        target
    }

    /// Takes a node's slot back, if it has one.
    fn release_slot(&mut self, id: NodeId) {
        if let Some(slot) = self.stable.node_mut(id).take_slot() {
            self.store.queue_free(slot);
        }
    }

    /// Whether a node has a lone sharer that is to be made private, and nobody is about to join it. Not one whose slot
    /// is lost, as that page has no bytes to be made private with.
    pub(in crate::broker) fn has_sharer_to_unshare(&self, id: NodeId) -> bool {
        let node = self.stable.node(id);
        node.sharers == 1 && node.proposed == 0 && !node.keeps_lone_sharer && !node.lost
    }

    /// Before one of two sharers leaves: has the other count as one whose partner declined, so that it is made private.
    pub(in crate::broker) fn mark_partner_to_unshare(&mut self, item: ItemId) {
        if let RmapItem::Stable(link) = self.rmap.item(item) {
            let node = self.stable.node_mut(link.node);
            node.keeps_lone_sharer &= node.sharers != 2;
        }
    }

    fn has_creator(&self, id: NodeId) -> bool {
        self.items_in(id, Role::Creating).next().is_some()
    }

    /// Has those pages be merged with a node's slot that were deferred before it was filled, or have waited for such to
    /// be tried again. O(items of the node · log VMs).
    pub(in crate::broker) fn enqueue_deferred(&mut self, id: NodeId) {
        if self.deferred_count == 0 && self.retries.vms.is_empty() {
            return;
        }
        let deferred: Vec<ItemId> = self
            .items_in(id, Role::Undirected)
            .filter(|&item| {
                self.is_deferred(item) && !self.is_retried(item) || self.is_awaiting_retry(item)
            })
            .collect();
        for item in deferred {
            self.enqueue(item);
        }
    }

    /// The items that are proposed to a node and have no directive.
    pub(in crate::broker) fn undirected_items(
        &self,
        id: NodeId,
    ) -> impl Iterator<Item = ItemId> + '_ {
        [Role::Undirected, Role::UndirectedUnpledged]
            .into_iter()
            .flat_map(move |role| self.items_in(id, role))
    }

    /// The items that are proposed to a node in this role.
    pub(in crate::broker) fn items_in(
        &self,
        id: NodeId,
        wanted: Role,
    ) -> impl Iterator<Item = ItemId> + '_ {
        self.stable.items(&self.rmap, id).filter(move |&item| {
            matches!(self.rmap.item(item), RmapItem::Proposed { role, .. } if role == wanted)
        })
    }
}
