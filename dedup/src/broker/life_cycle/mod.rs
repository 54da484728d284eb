//! How items and nodes change their states: what KSM does in `stable_tree_append()`, `break_cow()` and
//! `remove_rmap_item_from_tree()`.
//!
//! `items` has what changes one item, `nodes` what follows for nodes, `moves` what it has to do with moves of sharers, and
//! this file what does both. Offers, reports, fills, polls, moves and maintenance call these; nothing here calls them.

mod items;
mod moves;
mod nodes;

pub(super) use moves::Move;

use super::LocalBroker;
use super::ids::{ItemId, NodeId};
use super::index::stable::node::Stage;
use super::rmap::{Age, RmapItem, Role};
use crate::{LinearIndex, VmId};

impl LocalBroker {
    /// Takes an item out of whatever tree it is in and leaves it loose: the counterpart of KSM's
    /// `remove_rmap_item_from_tree`. A node that is of no use without it is removed, too.
    /// O(log VMs + log moves), or, if it was to fill its node's slot, O(items of the node · log VMs).
    pub(super) fn remove_item(&mut self, item: ItemId) {
        self.end_deferral(item);
        match self.rmap.item(item) {
            RmapItem::Loose(_) => {}
            RmapItem::Collided(_, age) => {
                self.dequeue(item);
                self.rmap.set(item, RmapItem::Loose(age));
            }
            RmapItem::Waiting(key, _) => {
                self.take_waiting(key);
            }
            RmapItem::Proposed { .. } | RmapItem::Stable(_) => {
                if let Some(node) = self.take_off_node(item) {
                    if self.stable.has_gained_room(node) {
                        self.propose_waiting(node);
                    }
                    self.dissolve_or_unshare_node(node);
                }
            }
        }
    }

    /// Takes out of the trees what its guest has written; if it shared a slot, that counts for its age. O(log n), or as
    /// [`remove_item`](Self::remove_item) if it shared none.
    pub(super) fn note_broken(&mut self, vm: VmId, linear: LinearIndex, item: ItemId) {
        let was_shared = matches!(self.rmap.item(item), RmapItem::Stable(_));
        self.remove_item(item);
        let Some(member) = self.members.get_mut(&vm).filter(|_| was_shared) else { return };
        let age = Age::of_broken(member.breaks.count(linear));
        if age != Age::NEW {
            self.rmap.set(item, RmapItem::Loose(age));
        }
    }

    /// Takes all of a VM's items out of the trees. O(items that take memory), and what it costs to
    /// [remove](Self::remove_item) those that are in one.
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

    /// Defers an item whose agent has no VMAs to spare for it. If it was to fill its node's slot, it is undirected
    /// again, and another page of the node fills the slot; if there is none but such, the slot is abandoned. Any other
    /// item is loose. O(items of the node · log VMs).
    pub(super) fn defer(&mut self, item: ItemId, id: NodeId) {
        let link = match self.rmap.item(item) {
            RmapItem::Proposed { link, role: Role::Creating }
                if self.stable.node(id).stage() == Stage::Reserved =>
            {
                link
            }
            _ => return self.remove_item(item),
        };
        self.rmap.set(item, RmapItem::Proposed { link, role: Role::Undirected });
        self.begin_deferral(item);
        self.dissolve_or_unshare_node(id);
    }
}
