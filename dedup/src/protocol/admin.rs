//! The engine's calls of a broker, for itself or for its users.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{
    BrokerError, BusyError, CompactCursor, CompactScope, Directive, IndexError, ItemState,
    MaxPageSharingError, MoveError, UnsharedReason,
};
use crate::extents::Extent;
use crate::fingerprint::{Identity, Secret};
use crate::stats::DomainStats;
use crate::{LinearIndex, PAGE_SIZE, Slot, VmId};

/// Pages of a VM whose items are kept, or dropped, together.
pub const TRIM_PAGES: u32 = 4096;

/// Pages or extents that one call appends, at most.
pub const BATCH: usize = 1024;

/// Whether there is more than a call has appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Batch {
    /// There may be: call again, for what follows.
    More,
    /// That was all.
    Last,
}

/// Where the bytes of a slot may be found once more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// What they must be.
    pub identity: Identity,
    /// Other slots of the same bytes.
    pub dups: Vec<Slot>,
    /// Pages on the unstable tree or proposed to a node that have them in their own memory.
    pub private: Vec<(VmId, LinearIndex)>,
}

/// What a broker counts of its domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStats {
    /// The counters that are public.
    pub domain: DomainStats,
    /// Slots that hold bytes, or are reserved for some.
    pub live_slots: u32,
    /// One above the highest slot that was ever in use.
    pub slots_high_water: u64,
}

/// What a broker counts of one VM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmItems {
    /// Its pages in the trees that share nothing: on the unstable tree, or proposed to a stable node and not deferred.
    pub waiting: u64,
    /// Its items that take memory: none for parts of it that nothing was ever offered from.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The broker as the engine sees it.
///
/// A call that fails has done nothing, unless documented otherwise.
pub trait Admin {
    /// Makes place for a VM of `page_count` pages. O(pages).
    ///
    /// # Errors
    ///
    /// A VM that is there already, or an index that is full; nothing was done.
    fn register(&mut self, vm: VmId, page_count: u32) -> Result<(), BrokerError>;

    /// Calls a VM by another number, if it is registered. O(pages / 4096 + log VMs).
    ///
    /// # Errors
    ///
    /// When another VM has that number; nothing was done.
    fn rename(&mut self, vm: VmId, to: VmId) -> Result<(), BrokerError>;

    /// How many VMs there are.
    fn vm_count(&self) -> u64;

    /// The key to the domain's fingerprints, for its agents.
    fn secret(&self) -> Secret;

    /// Sets on which NUMA node a VM's memory is. Only while none of its pages is in a tree.
    ///
    /// # Errors
    ///
    /// An unknown VM.
    fn set_numa_node(&mut self, vm: VmId, numa_node: u32) -> Result<(), BrokerError>;

    /// The NUMA node that a VM's memory is on: 0 if it was not set.
    fn numa_node(&self, vm: VmId) -> u32;

    /// Drops the items of those of a VM's pages that are in no tree, where all are of [as many](TRIM_PAGES) of `pages`;
    /// returns how many items were gone through for it. O(pages).
    fn trim(&mut self, vm: VmId, pages: Range<u32>) -> u64;

    /// The counters of the domain, which is called `name`. O(VMs).
    fn stats(&self, name: &str) -> BrokerStats;

    /// The counters of a VM; `None` for one that is not registered. O(pages / 4096).
    fn vm_items(&self, vm: VmId) -> Option<VmItems>;

    /// Bytes that the kernel holds for the store; `None` if the kernel does not report them.
    fn store_bytes(&self) -> Option<u64>;

    /// Nodes that are shared or about to be: those that keep knobs from being changed.
    fn node_count(&self) -> u64;

    /// Whether no page is shared, about to be, or waits for a twin.
    fn is_empty(&self) -> bool;

    /// Has at most `limit` pages share a slot from now on. O(1).
    ///
    /// # Errors
    ///
    /// When that is fewer than two, or anything is shared or about to be; nothing has changed.
    fn set_max_page_sharing(&mut self, limit: u32) -> Result<(), MaxPageSharingError>;

    /// Allows that pages on different NUMA nodes share, which is so from the beginning, or forbids it.
    ///
    /// # Errors
    ///
    /// When the rule is another and the broker is not [empty](Self::is_empty): what is in the trees was
    /// placed by the present one. Nothing has changed.
    fn set_merge_across_nodes(&mut self, allowed: bool) -> Result<(), BusyError>;

    /// Fills `pages` with pages that share a slot: the first ones, or those that follow on page `after`, the
    /// last of the call before. Returns how many they are: fewer than there is room for are the last. `None` when
    /// the slot holds nothing, or that page does not share it any more. O(pages + pages that are about to share
    /// it).
    ///
    /// The linear index is the one that the page was registered with, never one worked out from an
    /// address: a page is found wherever its memory has moved since it was merged. A page that was
    /// written since its agent's last pass is still one of them.
    fn slot_sharers(
        &self,
        slot: Slot,
        after: Option<(VmId, LinearIndex)>,
        pages: &mut [(VmId, LinearIndex)],
    ) -> Option<usize>;

    /// How many pages share a slot. O(1).
    fn sharer_count(&self, slot: Slot) -> u64;

    /// Why an unchanged page shares nothing; `None` when it does, or is in no tree. O(dups), or, where
    /// nodes are kept apart, O(VMs).
    fn unshared_reason(&self, vm: VmId, linear: LinearIndex) -> Option<UnsharedReason>;

    /// The age of a page that is to be passed over by the passes in which it has not changed, and by how many
    /// of them; `None` for any other. O(1).
    fn skipped(&self, vm: VmId, linear: LinearIndex) -> Option<(u8, u8)>;

    /// Whether pages of these bytes are in the trees, on whatever NUMA node. O(VMs) expected.
    fn has_equal(&self, page: &[u8; PAGE_SIZE]) -> bool;

    /// Begins to move every sharer of `slot` to a new slot with the same bytes, which is returned.
    /// [`move_directives`](Self::move_directives) have the sharers' agents do it, or, after
    /// [`enqueue_moves`](Self::enqueue_moves), [`directives`](super::Broker::directives). O(1) expected.
    ///
    /// # Errors
    ///
    /// When the slot is empty, busy or damaged, or the store is full; nothing has changed.
    fn begin_move(&mut self, slot: Slot) -> Result<Slot, MoveError>;

    /// Appends to `directives` where those of a VM's `pages`, which ascend, are to go whose slots
    /// are being moved, and nothing about others. O(pages · log moves).
    ///
    /// # Errors
    ///
    /// An unknown VM or page; nothing was done.
    fn move_directives(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        directives: &mut Vec<Directive>,
    ) -> Result<(), BrokerError>;

    /// Ends the visits of a pass; returns how many pages had to be taken out of the trees for that, as they were
    /// to be offered again in them and were not: [so many](BATCH) at most, and it is to be called again if there were
    /// any. If no agent has tried again in the visits what it had deferred, directives are due for the pages that
    /// waited for it. O(VMs that have such pages · pages / 64), and what it costs to take pages out of the trees.
    fn end_visits(&mut self) -> u64;

    /// Whether pages wait for others to be tried again that were deferred. O(VMs that have such pages).
    fn awaits_retries(&self) -> bool;

    /// Has directives be due for what is left of all moves, once more or for the first time. O(sharers that are left).
    fn enqueue_moves(&mut self);

    /// Gives up the move of a slot's sharers to another if none of them was moved; returns whether
    /// it did. O(sharers).
    fn give_up_move(&mut self, slot: Slot) -> bool;

    /// Gives up what is left of all moves that have been [enqueued](Self::enqueue_moves); returns how many moves
    /// that were. O(sharers that are left).
    fn give_up_moves(&mut self) -> u64;

    /// Does the next part of a VM's compaction; returns which slots are being moved to which, if any are, or
    /// `None` when all pages have been looked at. `apart` are the pages, ascending, of all VMs of the domain
    /// that begin a VMA whatever slots they and the pages before them cover; it is not looked at unless the
    /// cursor [is counting](CompactCursor::is_counting).
    /// O(16,384 pages), O(2048 sharers · log extents) or O(256 slots).
    ///
    /// # Errors
    ///
    /// An unknown VM; nothing was done.
    fn compact(
        &mut self,
        vm: VmId,
        cursor: &mut CompactCursor,
        scope: CompactScope,
        apart: &[(VmId, LinearIndex)],
    ) -> Result<Option<Vec<(Slot, Slot)>>, BrokerError>;

    /// Begins to join dups that fit together, going on where the last call ended; returns how many are to be removed.
    /// O(1): some thousand dups, and some thousand sharers that are to move.
    fn join_dups(&mut self) -> u64;

    /// Has pages that share their slots with no other page any more be made private where that gives mappings back,
    /// going on where the last call ended; returns whether there may be others. O(1): some ten thousand nodes and pages.
    fn unshare_left_alone(&mut self) -> Batch;

    /// Where the bytes of a slot may be found once more; `None` when it holds nothing.
    /// O(dups and their items).
    fn copies(&self, slot: Slot) -> Option<Copies>;

    /// Notes that the memory of a slot has failed: no directive names it any more. O(items of the slot).
    ///
    /// # Errors
    ///
    /// When the slot is empty, or is left empty, as pages were only to join it; and while an agent
    /// has not answered a directive to move a page to it: then nothing has changed.
    fn mark_lost(&mut self, slot: Slot) -> Result<(), MoveError>;

    /// Slots whose memory is known to have failed and that are in use still, ascending.
    fn lost_slots(&self) -> Vec<Slot>;

    /// Begins to move every sharer of a slot that has failed to another, which is returned: the one
    /// that they are being moved to already, or a new one, which is filled with `page`. No agent gets a
    /// directive: the caller has the pages mapped, and does so again for what is left of
    /// [`recoveries`](Self::recoveries).
    ///
    /// # Errors
    ///
    /// As for [`mark_lost`](Self::mark_lost); and when `page` is not what the slot was filled with, or
    /// the store is full: then the slot is marked as lost, and nothing else has changed.
    fn begin_recovery(&mut self, slot: Slot, page: &[u8; PAGE_SIZE]) -> Result<Slot, MoveError>;

    /// Slots that are lost and whose sharers could not all be mapped to another, and that other slot.
    /// O(moves).
    fn recoveries(&self) -> Vec<(Slot, Slot)>;

    /// The bytes that a slot holds, if they have this identity.
    fn read(&self, slot: Slot, identity: Identity) -> Option<Box<[u8; PAGE_SIZE]>>;

    /// Whether a page's bytes have this identity.
    fn has_identity(&self, page: &[u8; PAGE_SIZE], identity: Identity) -> bool;

    /// Gives back what the kernel holds for slots that hold nothing, going on where the last call ended.
    /// O(1) if it holds nothing, O(slots) with a bound otherwise.
    fn punch_empty_slots(&mut self);

    /// Clears the set of contested fingerprints while nothing is in the trees.
    fn clear_contested(&mut self);

    /// Ends a pass: the counts of breaks decay, so that those of long ago count no more. O(VMs + pages that were
    /// broken / 1024).
    fn decay_breaks(&mut self);

    /// Verifies the whole index, and that each slot holds the bytes of its node's identity, unless it
    /// is known to have lost them. O(items), and about 2 µs a slot.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold.
    fn check(&self) -> Result<(), IndexError>;

    /// Verifies that just these VMs are registered. O(VMs).
    ///
    /// # Errors
    ///
    /// The first VM that is registered and not among them, or the other way round.
    fn check_vms(&self, vms: &BTreeSet<VmId>) -> Result<(), IndexError>;

    /// Appends which pages of a VM from page `from` on cover which slots, as its agent has reported: the
    /// next extents, a [batch](BATCH) at most. None for a VM that is not registered.
    fn extents(&self, vm: VmId, from: LinearIndex, extents: &mut Vec<Extent>) -> Batch;

    /// Appends which trees the items of a VM's pages from page `from` on are in, a [batch](BATCH) at most.
    /// None for a VM that is not registered.
    fn item_states(&self, vm: VmId, from: LinearIndex, states: &mut Vec<ItemState>) -> Batch;
}
