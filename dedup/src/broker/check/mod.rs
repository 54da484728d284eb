//! Every invariant of the index, looked at from both ends. For tests and for `check` requests.

mod agents;
mod numbers;
mod queues;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::LocalBroker;
use super::ids::{ItemId, NodeId};
use super::index::stable::chain::Entry;
use super::index::stable::node::Stage;
use super::rmap::{RmapItem, Role};
use crate::fingerprint::Fingerprint;
use crate::protocol::IndexError;
use crate::{LinearIndex, PAGE_SIZE, Slot, VmId};

macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(IndexError(format!($($message)+)));
        }
    };
}

use ensure;

/// What the items, walked one by one, and the moves add up to.
#[derive(Default)]
struct Tally {
    sharers: BTreeMap<NodeId, u32>,
    proposed: BTreeMap<NodeId, u32>,
    waiting: u64,
    covering_pages: BTreeMap<Slot, u32>,
    /// Nodes that pages are being moved to.
    targets: BTreeSet<NodeId>,
}

/// What the nodes, walked one by one, add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    shared: u64,
    left_alone: u64,
    sharers: u64,
    slots: u32,
}

impl LocalBroker {
    /// Verifies the whole index, and that each slot holds the bytes of its node's identity, unless it
    /// is known to have lost them. O(items), and about 2 µs a slot.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), IndexError> {
        let targets = self.moves.values().map(|begun| begun.target).collect();
        let mut tally = Tally { targets, ..Tally::default() };
        for &vm in self.members.keys() {
            self.check_member(vm, &mut tally)?;
            self.check_queue(vm)?;
        }
        self.check_numbers()?;
        self.check_stable(&tally)?;
        self.check_unstable(&tally)?;
        self.check_slots(&tally)
    }

    fn check_member(&self, vm: VmId, tally: &mut Tally) -> Result<(), IndexError> {
        let member = &self.members[&vm];
        let (mut waiting, mut proposed) = (0, 0);
        for number in 0..member.items.page_count() {
            let linear = LinearIndex(number);
            let Some(id) = member.items.item(linear) else {
                return Err(IndexError(format!("VM {vm} has no item for page {number}")));
            };
            ensure!(self.rmap.page(id) == (vm, linear), "item {id:?} stands for another page");
            match self.rmap.item(id) {
                RmapItem::Loose(_) | RmapItem::Collided(..) => {}
                RmapItem::Waiting(..) => waiting += 1,
                RmapItem::Proposed { link, role } => {
                    let has_slot = self.stable.node(link.node).slot().is_some();
                    ensure!(
                        has_slot || role == Role::Undirected,
                        "page {number} of VM {vm} is {role:?} on a node without a slot"
                    );
                    *tally.proposed.entry(link.node).or_default() += 1;
                    proposed += 1;
                }
                RmapItem::Stable(link) => {
                    *tally.sharers.entry(link.node).or_default() += 1;
                    let slot = self.stable.node(link.node).slot();
                    let over = member.extents.slot(linear);
                    ensure!(
                        slot.is_some() && over == slot,
                        "page {number} of VM {vm} shares {slot:?} over {over:?}"
                    );
                }
            }
        }
        ensure!(waiting == member.waiting, "VM {vm}: {waiting} wait, {} counted", member.waiting);
        let counted = self.stable.proposed.of(vm);
        ensure!(proposed == counted, "VM {vm}: {proposed} proposed, {counted} counted");
        tally.waiting += waiting;
        for extent in member.extents.iter() {
            for offset in 0..extent.page_count {
                *tally.covering_pages.entry(extent.slot.offset(offset)).or_default() += 1;
            }
        }
        Ok(())
    }

    fn check_stable(&self, tally: &Tally) -> Result<(), IndexError> {
        let (mut sums, mut chains, mut dups) = (Sums::default(), 0, 0);
        self.stable.check_tree().map_err(IndexError)?;
        for entry in self.stable.entries() {
            match entry {
                Entry::Node(id) => {
                    self.check_node(self.stable.node(id).key, id, tally, &mut sums)?;
                }
                Entry::Chain(chain) => {
                    let nodes = self.stable.chains.dups(chain);
                    ensure!(nodes.len() > 1, "{chain:?} has {} dups", nodes.len());
                    let with_room_count = self.stable.chains.with_room_count(chain);
                    for (index, &dup) in nodes.iter().enumerate() {
                        let at = self.stable.node(dup).dup_index as usize;
                        let in_order =
                            at == index && self.stable.has_room(dup) == (index < with_room_count);
                        ensure!(
                            in_order,
                            "{dup:?} is at {index} of {chain:?}, {with_room_count} have room"
                        );
                    }
                    let key = self.stable.node(nodes[0]).key;
                    for &dup in nodes {
                        self.check_node(key, dup, tally, &mut sums)?;
                    }
                    chains += 1;
                    dups += nodes.len() as u64;
                }
            }
        }
        let counted = Sums {
            shared: self.stable.shared,
            left_alone: self.stable.left_alone_count,
            sharers: self.stable.sharers,
            slots: self.store.slots.live(),
        };
        ensure!(sums == counted, "{sums:?}, counted {counted:?}");
        let counted = (self.stable.chains.len(), self.stable.chains.dup_count);
        ensure!((chains, dups) == counted, "{chains} chains with {dups} dups, counted {counted:?}");
        Ok(())
    }

    fn check_node(
        &self,
        key: Fingerprint,
        id: NodeId,
        tally: &Tally,
        sums: &mut Sums,
    ) -> Result<(), IndexError> {
        let node = self.stable.node(id);
        ensure!(node.key == key, "{id:?} stands in the wrong place");
        let filled = node.stage() == Stage::Filled;
        ensure!(filled || node.sharers == 0, "{id:?} is shared and holds nothing");
        let least = if node.stage() == Stage::Matched { 2 } else { 1 };
        ensure!(node.load() >= least || self.is_target(id), "{id:?} is of no use to anybody");
        let (leaving, arriving) = (self.moves.get(&id), tally.targets.contains(&id));
        let closed = leaving.is_some() || arriving || node.lost;
        ensure!(
            closed == node.closed,
            "{id:?} is closed: {}, and lost or part of a move: {closed}",
            node.closed
        );
        ensure!(
            arriving == self.is_target(id),
            "{id:?} is the target of a move, and lost or the source of another"
        );
        ensure!(!node.lost || filled, "{id:?} has lost a slot that it does not have");
        let is_noted = node.slot().is_some_and(|slot| self.lost.contains(&slot));
        ensure!(!node.lost || is_noted, "{id:?} has lost its slot, and nobody can find it");
        let has_undirected = self.undirected_items(id).next().is_some();
        ensure!(!node.closed || !has_undirected, "{id:?} is closed, and has undirected items");
        if let Some(target) = leaving.map(|begun| self.stable.node(begun.target)) {
            let fits = target.load() + node.load() <= self.stable.max_page_sharing();
            ensure!(fits, "{id:?} has more items than fit where they are to go");
            let equal = target.key == key && target.identity == node.identity;
            ensure!(equal, "the sharers of {id:?} are being moved to another content");
        }
        ensure!(self.stable.is_within_limit(id), "{id:?} has {} items", node.load());
        if let Some(slot) = node.slot() {
            ensure!(self.store.slots.node(slot) == Some(id), "{id:?} and its slot differ");
            sums.slots += 1;
        }
        if let Some(slot) = node.filled_slot().filter(|_| !node.lost) {
            let mut page = [0; PAGE_SIZE];
            let read = self.store.memfd().read(slot, &mut page);
            ensure!(read.is_ok(), "{slot:?} cannot be read: {read:?}");
            let identity = self.secret.identity(&page);
            ensure!(identity == node.identity, "{slot:?} does not hold what it was filled with");
        }
        let creators = self.items_in(id, Role::Creating).count();
        let reserved = node.stage() == Stage::Reserved;
        ensure!(creators == 1 || !reserved, "{creators} fill the slot of {id:?}");
        ensure!(node.sharers < 2 || node.keeps_lone_sharer, "{id:?} has {} sharers", node.sharers);
        let found = tally.sharers.get(&id).copied().unwrap_or(0);
        ensure!(found == node.sharers, "{id:?}: {found} sharers, {} counted", node.sharers);
        let found = tally.proposed.get(&id).copied().unwrap_or(0);
        ensure!(found == node.proposed, "{id:?}: {found} proposed, {} counted", node.proposed);
        let listed = self.check_list(id)?;
        ensure!(listed == node.load(), "{id:?}: {listed} items on its list");
        sums.shared += u64::from(node.sharers > 0);
        sums.left_alone += u64::from(node.is_left_alone());
        sums.sharers += u64::from(node.sharers);
        Ok(())
    }

    fn check_list(&self, node: NodeId) -> Result<u32, IndexError> {
        let (mut listed, mut before) = (0, None::<ItemId>);
        for item in self.stable.items(&self.rmap, node) {
            let Some(&link) = self.rmap.item(item).link() else {
                return Err(IndexError(format!("{item:?} on the list of {node:?} is in no node")));
            };
            ensure!(
                link.node == node,
                "{item:?} on the list of {node:?} belongs to {:?}",
                link.node
            );
            ensure!(link.prev == before, "{item:?} does not point back to {before:?}");
            before = Some(item);
            listed += 1;
        }
        Ok(listed)
    }

    fn check_unstable(&self, tally: &Tally) -> Result<(), IndexError> {
        self.unstable.check(&self.rmap).map_err(IndexError)?;
        for item in self.unstable.iter() {
            let state = self.rmap.item(item);
            let RmapItem::Waiting(key, _) = state else {
                return Err(IndexError(format!("{item:?} waits and is {state:?}")));
            };
            let room = self.stable.find(key);
            ensure!(room.is_none(), "{item:?} waits, and there is room at {room:?}");
        }
        let len = self.unstable.len() as u64;
        ensure!(len == tally.waiting, "{len} on the unstable tree, {} wait", tally.waiting);
        Ok(())
    }

    fn check_slots(&self, tally: &Tally) -> Result<(), IndexError> {
        for number in 0..u32::try_from(self.store.slots.high_water()).unwrap_or(u32::MAX) {
            let slot = Slot(number);
            let found = tally.covering_pages.get(&slot).copied().unwrap_or(0);
            let counted = self.store.slots.covering_pages(slot);
            ensure!(found == counted, "{slot:?}: {found} pages cover it, {counted} counted");
        }
        self.store.slots.check().map_err(IndexError)
    }
}
