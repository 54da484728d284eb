//! An engine's requests to a broker in another process, and its replies: a message for each method of
//! [`Admin`].

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::bytes::Page;
use crate::extents::Extent;
use crate::fingerprint::{Identity, Secret};
use crate::protocol::{
    Admin, BATCH, Batch, BrokerError, BrokerStats, BusyError, CompactCursor, CompactScope, Copies,
    Directive, IndexError, ItemState, MaxPageSharingError, MoveError, UnsharedReason, VmItems,
};
use crate::{LinearIndex, Slot, VmId};

/// Which slots a compaction is moving to which.
type Group = Result<Option<Vec<(Slot, Slot)>>, BrokerError>;

/// A call of a method of [`Admin`], with its arguments in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminRequest {
    /// [`Admin::register`].
    Register(VmId, u32),
    /// [`Admin::rename`].
    Rename(VmId, VmId),
    /// [`Admin::vm_count`].
    VmCount,
    /// [`Admin::secret`].
    Secret,
    /// [`Admin::set_numa_node`].
    SetNumaNode(VmId, u32),
    /// [`Admin::numa_node`].
    NumaNode(VmId),
    /// [`Admin::trim`].
    Trim(VmId, Range<u32>),
    /// [`Admin::stats`].
    Stats(String),
    /// [`Admin::vm_items`].
    VmItems(VmId),
    /// [`Admin::store_bytes`].
    StoreBytes,
    /// [`Admin::node_count`].
    NodeCount,
    /// [`Admin::is_empty`].
    IsEmpty,
    /// [`Admin::set_max_page_sharing`].
    SetMaxPageSharing(u32),
    /// [`Admin::set_merge_across_nodes`].
    SetMergeAcrossNodes(bool),
    /// [`Admin::slot_sharers`], with how many pages there is room for; a [batch](BATCH) is the most that come.
    SlotSharers(Slot, Option<(VmId, LinearIndex)>, usize),
    /// [`Admin::sharer_count`].
    SharerCount(Slot),
    /// [`Admin::unshared_reason`].
    UnsharedReason(VmId, LinearIndex),
    /// [`Admin::skipped`].
    Skipped(VmId, LinearIndex),
    /// [`Admin::has_equal`].
    HasEqual(Page),
    /// [`Admin::begin_move`].
    BeginMove(Slot),
    /// [`Admin::move_directives`].
    MoveDirectives(VmId, Vec<LinearIndex>),
    /// [`Admin::end_visits`].
    EndVisits,
    /// [`Admin::awaits_retries`].
    AwaitsRetries,
    /// [`Admin::enqueue_moves`].
    EnqueueMoves,
    /// [`Admin::give_up_move`].
    GiveUpMove(Slot),
    /// [`Admin::give_up_moves`].
    GiveUpMoves,
    /// [`Admin::compact`].
    Compact(VmId, Box<CompactCursor>, CompactScope, Vec<(VmId, LinearIndex)>),
    /// [`Admin::join_dups`].
    JoinDups,
    /// [`Admin::unshare_left_alone`].
    UnshareLeftAlone,
    /// [`Admin::copies`].
    Copies(Slot),
    /// [`Admin::mark_lost`].
    MarkLost(Slot),
    /// [`Admin::lost_slots`].
    LostSlots,
    /// [`Admin::begin_recovery`].
    BeginRecovery(Slot, Page),
    /// [`Admin::recoveries`].
    Recoveries,
    /// [`Admin::read`].
    Read(Slot, Identity),
    /// [`Admin::has_identity`].
    HasIdentity(Page, Identity),
    /// [`Admin::punch_empty_slots`].
    PunchEmptySlots,
    /// [`Admin::clear_contested`].
    ClearContested,
    /// [`Admin::decay_breaks`].
    DecayBreaks,
    /// [`Admin::check`].
    Check,
    /// [`Admin::check_vms`].
    CheckVms(BTreeSet<VmId>),
    /// [`Admin::extents`].
    Extents(VmId, LinearIndex),
    /// [`Admin::item_states`].
    ItemStates(VmId, LinearIndex),
}

/// What a method of [`Admin`] has returned, or appended and returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminReply {
    /// Of [`Admin::register`].
    Register(Result<(), BrokerError>),
    /// Of [`Admin::rename`].
    Rename(Result<(), BrokerError>),
    /// Of [`Admin::vm_count`].
    VmCount(u64),
    /// Of [`Admin::secret`].
    Secret(Box<Secret>),
    /// Of [`Admin::set_numa_node`].
    SetNumaNode(Result<(), BrokerError>),
    /// Of [`Admin::numa_node`].
    NumaNode(u32),
    /// Of [`Admin::trim`].
    Trim(u64),
    /// Of [`Admin::stats`].
    Stats(Box<BrokerStats>),
    /// Of [`Admin::vm_items`].
    VmItems(Option<VmItems>),
    /// Of [`Admin::store_bytes`].
    StoreBytes(Option<u64>),
    /// Of [`Admin::node_count`].
    NodeCount(u64),
    /// Of [`Admin::is_empty`].
    IsEmpty(bool),
    /// Of [`Admin::set_max_page_sharing`].
    SetMaxPageSharing(Result<(), MaxPageSharingError>),
    /// Of [`Admin::set_merge_across_nodes`].
    SetMergeAcrossNodes(Result<(), BusyError>),
    /// Of [`Admin::slot_sharers`]: the pages that were put into the slice.
    SlotSharers(Option<Vec<(VmId, LinearIndex)>>),
    /// Of [`Admin::sharer_count`].
    SharerCount(u64),
    /// Of [`Admin::unshared_reason`].
    UnsharedReason(Option<UnsharedReason>),
    /// Of [`Admin::skipped`].
    Skipped(Option<(u8, u8)>),
    /// Of [`Admin::has_equal`].
    HasEqual(bool),
    /// Of [`Admin::begin_move`].
    BeginMove(Result<Slot, MoveError>),
    /// Of [`Admin::move_directives`].
    MoveDirectives(Result<Vec<Directive>, BrokerError>),
    /// Of [`Admin::end_visits`].
    EndVisits(u64),
    /// Of [`Admin::awaits_retries`].
    AwaitsRetries(bool),
    /// Of [`Admin::enqueue_moves`].
    EnqueueMoves(()),
    /// Of [`Admin::give_up_move`].
    GiveUpMove(bool),
    /// Of [`Admin::give_up_moves`].
    GiveUpMoves(u64),
    /// Of [`Admin::compact`].
    Compact((Box<CompactCursor>, Group)),
    /// Of [`Admin::join_dups`].
    JoinDups(u64),
    /// Of [`Admin::unshare_left_alone`].
    UnshareLeftAlone(Batch),
    /// Of [`Admin::copies`].
    Copies(Option<Copies>),
    /// Of [`Admin::mark_lost`].
    MarkLost(Result<(), MoveError>),
    /// Of [`Admin::lost_slots`].
    LostSlots(Vec<Slot>),
    /// Of [`Admin::begin_recovery`].
    BeginRecovery(Result<Slot, MoveError>),
    /// Of [`Admin::recoveries`].
    Recoveries(Vec<(Slot, Slot)>),
    /// Of [`Admin::read`].
    Read(Option<Page>),
    /// Of [`Admin::has_identity`].
    HasIdentity(bool),
    /// Of [`Admin::punch_empty_slots`].
    PunchEmptySlots(()),
    /// Of [`Admin::clear_contested`].
    ClearContested(()),
    /// Of [`Admin::decay_breaks`].
    DecayBreaks(()),
    /// Of [`Admin::check`].
    Check(Result<(), IndexError>),
    /// Of [`Admin::check_vms`].
    CheckVms(Result<(), IndexError>),
    /// Of [`Admin::extents`].
    Extents((Vec<Extent>, Batch)),
    /// Of [`Admin::item_states`].
    ItemStates((Vec<ItemState>, Batch)),
}

impl AdminRequest {
    /// Makes the call that the request stands for; returns the reply.
    pub fn dispatch(self, broker: &mut dyn Admin) -> AdminReply {
        match self {
            Self::Register(vm, page_count) => AdminReply::Register(broker.register(vm, page_count)),
            Self::Rename(vm, to) => AdminReply::Rename(broker.rename(vm, to)),
            Self::VmCount => AdminReply::VmCount(broker.vm_count()),
            Self::Secret => AdminReply::Secret(Box::new(broker.secret())),
            Self::SetNumaNode(vm, numa_node) => {
                AdminReply::SetNumaNode(broker.set_numa_node(vm, numa_node))
            }
            Self::NumaNode(vm) => AdminReply::NumaNode(broker.numa_node(vm)),
            Self::Trim(vm, pages) => AdminReply::Trim(broker.trim(vm, pages)),
            Self::Stats(name) => AdminReply::Stats(Box::new(broker.stats(&name))),
            Self::VmItems(vm) => AdminReply::VmItems(broker.vm_items(vm)),
            Self::StoreBytes => AdminReply::StoreBytes(broker.store_bytes()),
            Self::NodeCount => AdminReply::NodeCount(broker.node_count()),
            Self::IsEmpty => AdminReply::IsEmpty(broker.is_empty()),
            Self::SetMaxPageSharing(limit) => {
                AdminReply::SetMaxPageSharing(broker.set_max_page_sharing(limit))
            }
            Self::SetMergeAcrossNodes(allowed) => {
                AdminReply::SetMergeAcrossNodes(broker.set_merge_across_nodes(allowed))
            }
            Self::SlotSharers(slot, after, room) => {
                let mut pages = vec![(VmId(0), LinearIndex(0)); room.min(BATCH)];
                let count = broker.slot_sharers(slot, after, &mut pages);
                AdminReply::SlotSharers(count.map(|count| {
                    pages.truncate(count);
                    pages
                }))
            }
            Self::SharerCount(slot) => AdminReply::SharerCount(broker.sharer_count(slot)),
            Self::UnsharedReason(vm, linear) => {
                AdminReply::UnsharedReason(broker.unshared_reason(vm, linear))
            }
            Self::Skipped(vm, linear) => AdminReply::Skipped(broker.skipped(vm, linear)),
            Self::HasEqual(page) => AdminReply::HasEqual(broker.has_equal(&page.0)),
            Self::BeginMove(slot) => AdminReply::BeginMove(broker.begin_move(slot)),
            Self::MoveDirectives(vm, pages) => {
                let mut directives = Vec::new();
                let result = broker.move_directives(vm, &pages, &mut directives);
                AdminReply::MoveDirectives(result.map(|()| directives))
            }
            Self::EndVisits => AdminReply::EndVisits(broker.end_visits()),
            Self::AwaitsRetries => AdminReply::AwaitsRetries(broker.awaits_retries()),
            Self::EnqueueMoves => {
                broker.enqueue_moves();
                AdminReply::EnqueueMoves(())
            }
            Self::GiveUpMove(slot) => AdminReply::GiveUpMove(broker.give_up_move(slot)),
            Self::GiveUpMoves => AdminReply::GiveUpMoves(broker.give_up_moves()),
            Self::Compact(vm, mut cursor, scope, apart) => {
                let result = broker.compact(vm, &mut cursor, scope, &apart);
                AdminReply::Compact((cursor, result))
            }
            Self::JoinDups => AdminReply::JoinDups(broker.join_dups()),
            Self::UnshareLeftAlone => AdminReply::UnshareLeftAlone(broker.unshare_left_alone()),
            Self::Copies(slot) => AdminReply::Copies(broker.copies(slot)),
            Self::MarkLost(slot) => AdminReply::MarkLost(broker.mark_lost(slot)),
            Self::LostSlots => AdminReply::LostSlots(broker.lost_slots()),
            Self::BeginRecovery(slot, page) => {
                AdminReply::BeginRecovery(broker.begin_recovery(slot, &page.0))
            }
            Self::Recoveries => AdminReply::Recoveries(broker.recoveries()),
            Self::Read(slot, identity) => AdminReply::Read(broker.read(slot, identity).map(Page)),
            Self::HasIdentity(page, identity) => {
                AdminReply::HasIdentity(broker.has_identity(&page.0, identity))
            }
            Self::PunchEmptySlots => {
                broker.punch_empty_slots();
                AdminReply::PunchEmptySlots(())
            }
            Self::ClearContested => {
                broker.clear_contested();
                AdminReply::ClearContested(())
            }
            Self::DecayBreaks => {
                broker.decay_breaks();
                AdminReply::DecayBreaks(())
            }
            Self::Check => AdminReply::Check(broker.check()),
            Self::CheckVms(vms) => AdminReply::CheckVms(broker.check_vms(&vms)),
            Self::Extents(vm, from) => {
                let mut extents = Vec::new();
                let batch = broker.extents(vm, from, &mut extents);
                AdminReply::Extents((extents, batch))
            }
            Self::ItemStates(vm, from) => {
                let mut states = Vec::new();
                let batch = broker.item_states(vm, from, &mut states);
                AdminReply::ItemStates((states, batch))
            }
        }
    }
}
