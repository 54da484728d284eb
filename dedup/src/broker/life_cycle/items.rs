//! Changes of one item's state.

use crate::broker::ids::{ItemId, NodeId};
use crate::broker::index::stable::node::Stage;
use crate::broker::rmap::{RmapItem, Role};
use crate::broker::{LocalBroker, Member};
use crate::fingerprint::Fingerprint;

impl LocalBroker {
    /// Puts a loose item on the unstable tree; `false` when another has its place there.
    pub(in crate::broker) fn wait(&mut self, item: ItemId, fingerprint: Fingerprint) -> bool {
        let RmapItem::Loose(age) = self.rmap.item(item) else {
            unreachable!("only a loose item goes on the unstable tree")
        };
        let inserted = self.unstable.insert(&self.rmap, fingerprint, item);
        if inserted {
            self.rmap.set(item, RmapItem::Waiting(fingerprint, age));
            self.owner_mut(item).waiting += 1;
        }
        inserted
    }

    /// Puts a loose item on the unstable tree or, where its fingerprint does not tell it from others, has its
    /// agent offer it again.
    pub(in crate::broker) fn wait_or_name(&mut self, item: ItemId, key: Fingerprint) -> bool {
        if !self.contested.contains(key) {
            return self.wait(item, key);
        }
        self.decline(item, key);
        self.direct(item);
        true
    }

    /// Takes the item with this fingerprint off the unstable tree and leaves it loose.
    pub(in crate::broker) fn take_waiting(&mut self, fingerprint: Fingerprint) -> Option<ItemId> {
        let item = self.unstable.remove(&self.rmap, fingerprint)?;
        if let RmapItem::Waiting(_, age) = self.rmap.item(item) {
            self.rmap.set(item, RmapItem::Loose(age));
        }
        self.owner_mut(item).waiting -= 1;
        Some(item)
    }

    /// Notes with a loose item the key under which it is not to be looked up again.
    pub(in crate::broker) fn decline(&mut self, item: ItemId, key: Fingerprint) {
        self.end_put_off(item);
        if let RmapItem::Loose(age) = self.rmap.item(item) {
            self.rmap.set(item, RmapItem::Declined(key, age));
        }
    }

    /// Proposes a loose item to a node, and has its agent be sent a directive. One that was put off gets none
    /// before another has filled the node's slot.
    pub(in crate::broker) fn propose(&mut self, id: NodeId, item: ItemId) {
        self.stable.propose(&mut self.rmap, id, item, Role::Undirected);
        if !self.is_put_off(item) || self.stable.node(id).stage() == Stage::Filled {
            self.direct(item);
        }
    }

    /// Proposes the item to a node that waits on the unstable tree, if there is one: the node has room again.
    /// Pages of a content that has nodes wait only while all of these are full.
    pub(in crate::broker) fn propose_waiting(&mut self, id: NodeId) {
        if let Some(waiting) = self.take_waiting(self.stable.node(id).fingerprint) {
            self.propose(id, waiting);
        }
    }

    /// Takes an item off its node's list and leaves it loose; returns the node. Its agent is not sent
    /// what was to be directed there. O(log VMs).
    pub(in crate::broker) fn unlink(&mut self, item: ItemId) -> Option<NodeId> {
        self.dequeue(item);
        self.stable.unlink(&mut self.rmap, item)
    }

    /// Has the item's agent be sent a directive when it polls next: to map the page if it is proposed, to make it
    /// private if it shares with no other. Which one is decided then.
    pub(in crate::broker) fn direct(&mut self, item: ItemId) {
        let (_, linear) = self.rmap.page(item);
        self.owner_mut(item).queue.insert(linear);
    }

    /// Has the item's agent be sent no directive for it.
    pub(in crate::broker) fn dequeue(&mut self, item: ItemId) {
        let (_, linear) = self.rmap.page(item);
        self.owner_mut(item).queue.remove(linear);
    }

    /// Whether the item's agent has put it off for want of mappings.
    pub(in crate::broker) fn is_put_off(&self, item: ItemId) -> bool {
        if self.put_off_count == 0 {
            return false;
        }
        let (vm, linear) = self.rmap.page(item);
        self.members.get(&vm).is_some_and(|member| member.queue.is_put_off(linear))
    }

    /// Counts an item as put off.
    pub(super) fn begin_put_off(&mut self, item: ItemId) {
        let (_, linear) = self.rmap.page(item);
        self.owner_mut(item).queue.put_off(linear);
        self.put_off_count += 1;
    }

    /// Has an item not count as put off any more.
    pub(in crate::broker) fn end_put_off(&mut self, item: ItemId) {
        if self.put_off_count > 0 {
            let (_, linear) = self.rmap.page(item);
            self.put_off_count -= u64::from(self.owner_mut(item).queue.end_put_off(linear));
        }
    }

    /// What is known of the VM that an item belongs to.
    pub(in crate::broker) fn owner_mut(&mut self, item: ItemId) -> &mut Member {
        let (vm, _) = self.rmap.page(item);
        match self.members.get_mut(&vm) {
            Some(member) => member,
            None => unreachable!("an item of VM {vm}, which is gone"),
        }
    }
}
