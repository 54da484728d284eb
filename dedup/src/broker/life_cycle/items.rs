//! Changes of one item's state.

use crate::broker::ids::{ItemId, NodeId};
use crate::broker::index::stable::node::Stage;
use crate::broker::rmap::{RmapItem, Role};
use crate::broker::{LocalBroker, Member};
use crate::fingerprint::Fingerprint;

impl LocalBroker {
    /// Puts a loose item on the unstable tree; `false` when another has its place there.
    pub(in crate::broker) fn wait(&mut self, item: ItemId, key: Fingerprint) -> bool {
        let RmapItem::Loose(age) = self.rmap.item(item) else {
            unreachable!("only a loose item goes on the unstable tree")
        };
        let inserted = self.unstable.insert(&self.rmap, key, item);
        if inserted {
            self.rmap.set(item, RmapItem::Waiting(key, age));
            self.owner_mut(item).waiting += 1;
        }
        inserted
    }

    /// Puts a loose item on the unstable tree; one with a contested key is sent a directive to be offered again
    /// instead.
    pub(in crate::broker) fn wait_or_reoffer(&mut self, item: ItemId, key: Fingerprint) -> bool {
        if !self.contested.contains(key) {
            return self.wait(item, key);
        }
        self.set_collided(item, key);
        self.enqueue(item);
        true
    }

    /// Takes the item with this key off the unstable tree and leaves it loose.
    pub(in crate::broker) fn take_waiting(&mut self, key: Fingerprint) -> Option<ItemId> {
        let item = self.unstable.remove(&self.rmap, key)?;
        if let RmapItem::Waiting(_, age) = self.rmap.item(item) {
            self.rmap.set(item, RmapItem::Loose(age));
        }
        self.owner_mut(item).waiting -= 1;
        Some(item)
    }

    /// Notes with a loose item the key of which its page is known to differ, or which is contested.
    pub(in crate::broker) fn set_collided(&mut self, item: ItemId, key: Fingerprint) {
        self.end_deferral(item);
        if let RmapItem::Loose(age) = self.rmap.item(item) {
            self.rmap.set(item, RmapItem::Collided(key, age));
        }
    }

    /// Proposes a loose item to a node, and enqueues it; one that is deferred only if the node's slot is filled
    /// already, and it is not about to be offered again.
    pub(in crate::broker) fn propose(&mut self, id: NodeId, item: ItemId) {
        let is_filled = self.stable.node(id).stage() == Stage::Filled;
        let role = if is_filled { Role::UndirectedUnpledged } else { Role::Undirected };
        self.stable.propose(&mut self.rmap, id, item, role);
        if !self.is_deferred(item) || is_filled && !self.is_retried(item) {
            self.enqueue(item);
        }
    }

    /// Proposes to a node the item that waits on the unstable tree, if there is one: the node has room again.
    /// Pages of a content that has nodes wait only while all of these are full.
    pub(in crate::broker) fn propose_waiting(&mut self, id: NodeId) {
        if let Some(waiting) = self.take_waiting(self.stable.node(id).key) {
            self.propose(id, waiting);
        }
    }

    /// Takes an item off its node's list and the poll queue, and leaves it loose; returns the node. (The tree's
    /// `unlink` does not touch the queue.) O(log VMs).
    pub(in crate::broker) fn take_off_node(&mut self, item: ItemId) -> Option<NodeId> {
        self.dequeue(item);
        self.stable.unlink(&mut self.rmap, item)
    }

    /// Notes that a directive for the item is due. Which one the next poll decides: to map the page if it is
    /// proposed or its node is being moved, to make it private if it shares with no other.
    pub(in crate::broker) fn enqueue(&mut self, item: ItemId) {
        let (_, linear) = self.rmap.page(item);
        self.owner_mut(item).queue.insert(linear);
    }

    /// Notes that no directive for the item is due, parked or lacking a slot.
    pub(in crate::broker) fn dequeue(&mut self, item: ItemId) {
        let (_, linear) = self.rmap.page(item);
        self.owner_mut(item).queue.remove(linear);
    }

    /// Whether the item's agent has deferred it for want of VMAs.
    pub(in crate::broker) fn is_deferred(&self, item: ItemId) -> bool {
        if self.deferred_count == 0 {
            return false;
        }
        let (vm, linear) = self.rmap.page(item);
        self.members.get(&vm).is_some_and(|member| member.queue.is_deferred(linear))
    }

    /// Whether the page of an item is about to be offered again. O(log VMs).
    pub(in crate::broker) fn is_retried(&self, item: ItemId) -> bool {
        let (vm, linear) = self.rmap.page(item);
        self.members.get(&vm).is_some_and(|member| member.queue.is_retried(linear))
    }

    /// Whether an item awaits a retry. O(log VMs).
    pub(in crate::broker) fn is_awaiting_retry(&self, item: ItemId) -> bool {
        let (vm, linear) = self.rmap.page(item);
        self.members.get(&vm).is_some_and(|member| member.queue.is_awaiting_retry(linear))
    }

    /// Counts an item as deferred.
    pub(super) fn begin_deferral(&mut self, item: ItemId) {
        let (_, linear) = self.rmap.page(item);
        self.owner_mut(item).queue.defer(linear);
        self.deferred_count += 1;
    }

    /// Has an item not count as deferred any more.
    pub(in crate::broker) fn end_deferral(&mut self, item: ItemId) {
        if self.deferred_count > 0 {
            let (_, linear) = self.rmap.page(item);
            self.deferred_count -= u64::from(self.owner_mut(item).queue.end_deferral(linear));
        }
    }

    /// The VM that an item belongs to.
    pub(in crate::broker) fn owner_mut(&mut self, item: ItemId) -> &mut Member {
        let (vm, _) = self.rmap.page(item);
        match self.members.get_mut(&vm) {
            Some(member) => member,
            None => unreachable!("an item of VM {vm}, which is gone"),
        }
    }
}
