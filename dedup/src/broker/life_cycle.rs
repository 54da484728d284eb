//! The life of a stable node: proposed, filled, shared, dissolved.

use super::ids::{ItemId, NodeId};
use super::index::stable::node::Stage;
use super::rmap::{RmapItem, Role};
use super::{LocalBroker, Member};
use crate::fingerprint::Fingerprint;
use crate::{LinearIndex, VmId};

impl LocalBroker {
    /// Takes an item out of whatever tree it is in and leaves it loose: the counterpart of KSM's
    /// `remove_rmap_item_from_tree`. A node that it leaves empty goes too.
    pub(super) fn remove_item(&mut self, item: ItemId) {
        self.end_put_off(item);
        match self.rmap.item(item) {
            RmapItem::Loose(_) => {}
            RmapItem::Declined(_, age) => {
                self.dequeue(item);
                self.rmap.set(item, RmapItem::Loose(age));
            }
            RmapItem::Waiting(fingerprint, _) => {
                self.take_waiting(fingerprint);
            }
            RmapItem::Proposed { .. } | RmapItem::Stable(_) => {
                if let Some(node) = self.unlink(item) {
                    if self.stable.was_full(node) {
                        self.match_waiting(node);
                    }
                    self.settle_node(node);
                }
            }
        }
    }

    /// Gives the room that a full node has lost an item's worth of to the page that waits for it.
    /// Pages of a content that has nodes wait only while all of these are full.
    pub(super) fn match_waiting(&mut self, id: NodeId) {
        if let Some(waiting) = self.take_waiting(self.stable.node(id).fingerprint) {
            self.match_with(id, waiting);
        }
    }

    /// Proposes a loose item, whose agent is to ask what to do, to a node. One that was put off waits until
    /// another has filled its slot.
    pub(super) fn match_with(&mut self, id: NodeId, item: ItemId) {
        self.stable.propose(&mut self.rmap, id, item, Role::Undirected);
        if !self.is_put_off(item) || self.stable.node(id).stage() == Stage::Filled {
            self.direct(item);
        }
    }

    /// Whether the item's agent has put it off for want of mappings.
    pub(super) fn is_put_off(&self, item: ItemId) -> bool {
        if self.put_off_count == 0 {
            return false;
        }
        let (vm, linear) = self.rmap.page(item);
        self.members.get(&vm).is_some_and(|member| member.queue.is_put_off(linear))
    }

    /// Has an item not count as put off any more.
    pub(super) fn end_put_off(&mut self, item: ItemId) {
        if self.put_off_count > 0 {
            let (_, linear) = self.rmap.page(item);
            self.put_off_count -= u64::from(self.owner_mut(item).queue.end_put_off(linear));
        }
    }

    /// Has another page fill the slot that an item was to fill, for which its agent has no mappings, or the
    /// node wait until an agent has some.
    pub(super) fn put_off(&mut self, item: ItemId, id: NodeId) {
        let link = match self.rmap.item(item) {
            RmapItem::Proposed { link, role: Role::Creating }
                if self.stable.node(id).stage() == Stage::Reserved =>
            {
                link
            }
            _ => return self.remove_item(item),
        };
        self.rmap.set(item, RmapItem::Proposed { link, role: Role::Undirected });
        let (_, linear) = self.rmap.page(item);
        self.owner_mut(item).queue.put_off(linear);
        self.put_off_count += 1;
        self.settle_node(id);
    }

    /// Has those be merged with a node's slot that were put off before it was filled. O(items of the node).
    pub(super) fn direct_put_off(&mut self, id: NodeId) {
        if self.put_off_count == 0 {
            return;
        }
        let put_off: Vec<ItemId> =
            self.items_in(id, Role::Undirected).filter(|&item| self.is_put_off(item)).collect();
        for item in put_off {
            self.direct(item);
        }
    }

    /// Puts a loose item on the unstable tree; `false` when its place there is taken.
    pub(super) fn wait(&mut self, item: ItemId, fingerprint: Fingerprint) -> bool {
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

    /// Takes the twin that waits with this fingerprint off the unstable tree and leaves it loose.
    pub(super) fn take_waiting(&mut self, fingerprint: Fingerprint) -> Option<ItemId> {
        let item = self.unstable.remove(&self.rmap, fingerprint)?;
        if let RmapItem::Waiting(_, age) = self.rmap.item(item) {
            self.rmap.set(item, RmapItem::Loose(age));
        }
        self.owner_mut(item).waiting -= 1;
        Some(item)
    }

    /// Has the item's agent do what the item's state says: map it if it waits to share a node, make
    /// it private if it shares one with nobody.
    pub(super) fn direct(&mut self, item: ItemId) {
        let (_, linear) = self.rmap.page(item);
        self.owner_mut(item).queue.insert(linear);
    }

    /// Takes an item off its node's list and leaves it loose; says which node it was. Its agent is not
    /// asked any more what it was to be asked there. O(log VMs).
    pub(super) fn unlink(&mut self, item: ItemId) -> Option<NodeId> {
        self.dequeue(item);
        self.stable.unlink(&mut self.rmap, item)
    }

    /// Has the item's agent not be asked any more: what it was to be asked for is over.
    fn dequeue(&mut self, item: ItemId) {
        let (_, linear) = self.rmap.page(item);
        self.owner_mut(item).queue.remove(linear);
    }

    /// Draws the consequences of an item's leaving a node's list.
    pub(super) fn settle_node(&mut self, id: NodeId) {
        if self.is_target(id) {
            // Pages are on their way to it.
            return;
        }
        let node = self.stable.node(id);
        if node.sharers > 0 {
            // The break_cow rule: a page that was merged for a partner who then declined is made
            // private again at once. It keeps its item until its agent has done so.
            if self.has_unpaired_sharer(id) {
                let sharer = self.stable.items(&self.rmap, id).next();
                if let Some(sharer) = sharer {
                    self.direct(sharer);
                }
            }
            return;
        }
        if node.stage() == Stage::Reserved && !self.has_creator(id) {
            // Nobody will fill the slot. Its creator's neighbours that were told to join it, in the
            // same batch, will find that, and be offered again; whoever still waits may be told to
            // fill another.
            self.release_slot(id);
            let joining: Vec<ItemId> = self.items_in(id, Role::Joining).collect();
            for item in joining {
                self.unlink(item);
                if self.stable.was_full(id) {
                    self.match_waiting(id);
                }
            }
            let waiting: Vec<ItemId> = self
                .items_in(id, Role::Undirected)
                .filter(|&item| !self.is_put_off(item))
                .collect();
            for item in waiting {
                self.direct(item);
            }
        }
        let node = self.stable.node(id);
        let least = if node.stage() == Stage::Matched { 2 } else { 1 };
        if node.proposed < least {
            self.dissolve(id);
        }
    }

    /// Whether a node was made for partners all of whom declined but one, which is to be made private:
    /// not one whose slot is lost, as that page has no bytes to be made private with.
    pub(super) fn has_unpaired_sharer(&self, id: NodeId) -> bool {
        let node = self.stable.node(id);
        node.sharers == 1 && node.proposed == 0 && !node.paired && !node.lost
    }

    /// Has the last but one sharer of a node count as a partner that never came when it leaves.
    pub(super) fn unpair(&mut self, item: ItemId) {
        if let RmapItem::Stable(link) = self.rmap.item(item) {
            let node = self.stable.node_mut(link.node);
            node.paired &= node.sharers != 2;
        }
    }

    fn has_creator(&self, id: NodeId) -> bool {
        self.items_in(id, Role::Creating).next().is_some()
    }

    pub(super) fn items_in(&self, id: NodeId, wanted: Role) -> impl Iterator<Item = ItemId> + '_ {
        self.stable.items(&self.rmap, id).filter(move |&item| {
            matches!(self.rmap.item(item), RmapItem::Proposed { role, .. } if role == wanted)
        })
    }

    /// Takes a node's slot back, if it has one.
    fn release_slot(&mut self, id: NodeId) {
        if let Some(slot) = self.stable.node_mut(id).take_slot() {
            self.store.free(slot);
        }
    }

    /// Removes a node that nobody shares, and that at most one page still could. If that page's
    /// agent knows nothing of it the page waits again; otherwise it is forgotten, and its agent will
    /// offer it anew when it finds that it cannot join.
    pub(super) fn dissolve(&mut self, id: NodeId) {
        self.release_slot(id);
        let fingerprint = self.stable.node(id).fingerprint;
        let last = self.stable.items(&self.rmap, id).next();
        let waits = self.items_in(id, Role::Undirected).next().is_some();
        if let Some(item) = last {
            self.unlink(item);
        }
        self.stable.remove(id);
        self.end_move(id);
        let Some(item) = last.filter(|_| waits) else { return };
        // Another dup may have come to have room while this one had a use for the page.
        if let Some(dup) = self.stable.find(fingerprint) {
            self.match_with(dup, item);
        } else {
            self.wait_or_name(item, fingerprint);
        }
    }

    /// What is known of the VM that an item belongs to.
    pub(super) fn owner_mut(&mut self, item: ItemId) -> &mut Member {
        let (vm, _) = self.rmap.page(item);
        match self.members.get_mut(&vm) {
            Some(member) => member,
            None => unreachable!("an item of VM {vm}, which is gone"),
        }
    }

    /// Takes all of a VM's items out of the trees. O(items that take memory).
    pub(super) fn remove_all_items(&mut self, vm: VmId) {
        let mut next = 0;
        while let Some(member) = self.members.get(&vm)
            && let Some(pages) = self.rmap.next_made(&member.items, next)
        {
            next = pages.end;
            for item in pages
                .filter_map(|number| self.item(vm, LinearIndex(number)).ok())
                .collect::<Vec<_>>()
            {
                self.remove_item(item);
            }
        }
    }
}
