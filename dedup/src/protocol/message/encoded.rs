//! A broker in this process that is called as if it were in another.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AdminReply, AdminRequest, AgentReply, AgentRequest, MessageError, decode, encode};
use crate::bytes::{Bytes, Page};
use crate::extents::Extent;
use crate::fingerprint::{Identity, Secret};
use crate::protocol::{
    Admin, BATCH, Batch, Broker, BrokerError, BrokerStats, BusyError, CompactCursor, CompactScope,
    Copies, Decision, Directive, IdentityOffer, IndexError, ItemState, MaxPageSharingError,
    MoveError, Offer, Outcome, ReportError, UnsharedReason, VmItems,
};
use crate::{LinearIndex, PAGE_SIZE, Slot, VmId};

/// Passes every call on to a broker as bytes, and every reply back: a test of the messages.
///
/// # Panics
///
/// Every method, when a message does not survive that.
#[derive(Debug)]
pub struct Encoded<B>(RefCell<B>);

/// Sends a request and returns what the reply of the same name has.
macro_rules! call {
    ($send:expr, $request:ident, $reply:ident, $name:ident $($arguments:tt)?) => {
        match $send(&$request::$name $($arguments)?) {
            $reply::$name(result) => result,
            other => unreachable!("{} was answered by {other:?}", stringify!($name)),
        }
    };
}

/// What an agent's call returns.
macro_rules! agent {
    ($self:ident, $($request:tt)+) => {
        call!(|request| $self.agent_reply(request), AgentRequest, AgentReply, $($request)+)
    };
}

/// What a call of the engine's returns.
macro_rules! admin {
    ($self:ident, $($request:tt)+) => {
        call!(|request| $self.admin_reply(request), AdminRequest, AdminReply, $($request)+)
    };
}

impl<B> Encoded<B> {
    /// A broker that is to be called so.
    pub fn new(broker: B) -> Self {
        Self(RefCell::new(broker))
    }

    /// The broker itself.
    pub fn get_mut(&mut self) -> &mut B {
        self.0.get_mut()
    }
}

impl<B: Broker> Encoded<B> {
    fn agent_reply(&mut self, request: &AgentRequest) -> AgentReply {
        sent(&sent(request).dispatch(self.0.get_mut()))
    }
}

impl<B: Admin> Encoded<B> {
    fn admin_reply(&self, request: &AdminRequest) -> AdminReply {
        sent(&sent(request).dispatch(&mut *self.0.borrow_mut()))
    }
}

/// What comes of a message at the other end.
fn sent<T: Serialize + DeserializeOwned>(message: &T) -> T {
    intact(encode(message).and_then(|bytes| decode(&bytes)))
}

/// What was received, if it is what it should be.
fn intact<T>(received: Result<T, MessageError>) -> T {
    received.unwrap_or_else(|error| panic!("{}: {error:?}", std::any::type_name::<T>()))
}

/// Puts what was listed where there is room for it; returns how many that is.
fn put<T: Copy>(listed: &[T], room: &mut [T]) -> Result<usize, MessageError> {
    let error = MessageError::TooMany { count: listed.len(), room: room.len() };
    room.get_mut(..listed.len()).ok_or(error)?.copy_from_slice(listed);
    Ok(listed.len())
}

impl<B: Broker> Broker for Encoded<B> {
    fn offer(
        &mut self,
        vm: VmId,
        offers: &[Offer],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), BrokerError> {
        decisions.append(&mut agent!(self, Offer(vm, offers.to_vec()))?);
        Ok(())
    }

    fn offer_by_identity(
        &mut self,
        vm: VmId,
        offers: &[IdentityOffer],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), BrokerError> {
        decisions.append(&mut agent!(self, OfferByIdentity(vm, offers.to_vec()))?);
        Ok(())
    }

    fn age(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        skip: &mut Vec<bool>,
    ) -> Result<(), BrokerError> {
        skip.append(&mut agent!(self, Age(vm, pages.to_vec()))?);
        Ok(())
    }

    fn fill(
        &mut self,
        vm: VmId,
        first: Slot,
        pages: &[u8],
        accepted: &mut Vec<bool>,
    ) -> Result<(), BrokerError> {
        let (mut filled, result) = agent!(self, Fill(vm, first, Bytes(pages.to_vec())));
        accepted.append(&mut filled);
        result
    }

    fn report(&mut self, vm: VmId, outcomes: &[Outcome]) -> Result<(), ReportError> {
        agent!(self, Report(vm, outcomes.to_vec()))
    }

    fn directives(
        &mut self,
        vm: VmId,
        limit: usize,
        directives: &mut Vec<Directive>,
    ) -> Result<(), BrokerError> {
        directives.append(&mut agent!(self, Directives(vm, limit))?);
        Ok(())
    }

    fn partners(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        partners: &mut Vec<Option<VmId>>,
    ) -> Result<(), BrokerError> {
        partners.append(&mut agent!(self, Partners(vm, pages.to_vec()))?);
        Ok(())
    }

    fn unregister(&mut self, vm: VmId) -> Result<(), BrokerError> {
        agent!(self, Unregister(vm))
    }
}

impl<B: Admin> Admin for Encoded<B> {
    fn register(&mut self, vm: VmId, page_count: u32) -> Result<(), BrokerError> {
        admin!(self, Register(vm, page_count))
    }

    fn rename(&mut self, vm: VmId, to: VmId) -> Result<(), BrokerError> {
        admin!(self, Rename(vm, to))
    }

    fn vm_count(&self) -> u64 {
        admin!(self, VmCount)
    }

    fn secret(&self) -> Secret {
        *admin!(self, Secret)
    }

    fn set_numa_node(&mut self, vm: VmId, numa_node: u32) -> Result<(), BrokerError> {
        admin!(self, SetNumaNode(vm, numa_node))
    }

    fn numa_node(&self, vm: VmId) -> u32 {
        admin!(self, NumaNode(vm))
    }

    fn trim(&mut self, vm: VmId, pages: Range<u32>) -> u64 {
        admin!(self, Trim(vm, pages))
    }

    fn stats(&self, name: &str) -> BrokerStats {
        *admin!(self, Stats(name.to_owned()))
    }

    fn vm_items(&self, vm: VmId) -> Option<VmItems> {
        admin!(self, VmItems(vm))
    }

    fn store_bytes(&self) -> Option<u64> {
        admin!(self, StoreBytes)
    }

    fn node_count(&self) -> u64 {
        admin!(self, NodeCount)
    }

    fn is_empty(&self) -> bool {
        admin!(self, IsEmpty)
    }

    fn set_max_page_sharing(&mut self, limit: u32) -> Result<(), MaxPageSharingError> {
        admin!(self, SetMaxPageSharing(limit))
    }

    fn set_merge_across_nodes(&mut self, allowed: bool) -> Result<(), BusyError> {
        admin!(self, SetMergeAcrossNodes(allowed))
    }

    fn slot_sharers(
        &self,
        slot: Slot,
        after: Option<(VmId, LinearIndex)>,
        pages: &mut [(VmId, LinearIndex)],
    ) -> Option<usize> {
        let (mut after, mut count) = (after, 0);
        loop {
            let end = pages.len().min(count + BATCH);
            let room = &mut pages[count..end];
            let listed = admin!(self, SlotSharers(slot, after, room.len()))?;
            let is_last = listed.len() < room.len();
            count += intact(put(&listed, room));
            if is_last || count == pages.len() {
                return Some(count);
            }
            after = listed.last().copied();
        }
    }

    fn sharer_count(&self, slot: Slot) -> u64 {
        admin!(self, SharerCount(slot))
    }

    fn unshared_reason(&self, vm: VmId, linear: LinearIndex) -> Option<UnsharedReason> {
        admin!(self, UnsharedReason(vm, linear))
    }

    fn skipped(&self, vm: VmId, linear: LinearIndex) -> Option<(u8, u8)> {
        admin!(self, Skipped(vm, linear))
    }

    fn has_equal(&self, page: &[u8; PAGE_SIZE]) -> bool {
        admin!(self, HasEqual(Page(Box::new(*page))))
    }

    fn begin_move(&mut self, slot: Slot) -> Result<Slot, MoveError> {
        admin!(self, BeginMove(slot))
    }

    fn move_directives(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        directives: &mut Vec<Directive>,
    ) -> Result<(), BrokerError> {
        directives.append(&mut admin!(self, MoveDirectives(vm, pages.to_vec()))?);
        Ok(())
    }

    fn end_visits(&mut self) -> u64 {
        admin!(self, EndVisits)
    }

    fn awaits_retries(&self) -> bool {
        admin!(self, AwaitsRetries)
    }

    fn enqueue_moves(&mut self) {
        admin!(self, EnqueueMoves);
    }

    fn give_up_move(&mut self, slot: Slot) -> bool {
        admin!(self, GiveUpMove(slot))
    }

    fn give_up_moves(&mut self) -> u64 {
        admin!(self, GiveUpMoves)
    }

    fn compact(
        &mut self,
        vm: VmId,
        cursor: &mut CompactCursor,
        scope: CompactScope,
        apart: &[(VmId, LinearIndex)],
    ) -> Result<Option<Vec<(Slot, Slot)>>, BrokerError> {
        let sent = Box::new(std::mem::take(cursor));
        let (moved_on, result) = admin!(self, Compact(vm, sent, scope, apart.to_vec()));
        *cursor = *moved_on;
        result
    }

    fn join_dups(&mut self) -> u64 {
        admin!(self, JoinDups)
    }

    fn unshare_left_alone(&mut self) -> Batch {
        admin!(self, UnshareLeftAlone)
    }

    fn copies(&self, slot: Slot) -> Option<Copies> {
        admin!(self, Copies(slot))
    }

    fn mark_lost(&mut self, slot: Slot) -> Result<(), MoveError> {
        admin!(self, MarkLost(slot))
    }

    fn lost_slots(&self) -> Vec<Slot> {
        admin!(self, LostSlots)
    }

    fn begin_recovery(&mut self, slot: Slot, page: &[u8; PAGE_SIZE]) -> Result<Slot, MoveError> {
        admin!(self, BeginRecovery(slot, Page(Box::new(*page))))
    }

    fn recoveries(&self) -> Vec<(Slot, Slot)> {
        admin!(self, Recoveries)
    }

    fn read(&self, slot: Slot, identity: Identity) -> Option<Box<[u8; PAGE_SIZE]>> {
        admin!(self, Read(slot, identity)).map(|page| page.0)
    }

    fn has_identity(&self, page: &[u8; PAGE_SIZE], identity: Identity) -> bool {
        admin!(self, HasIdentity(Page(Box::new(*page)), identity))
    }

    fn punch_empty_slots(&mut self) {
        admin!(self, PunchEmptySlots);
    }

    fn clear_contested(&mut self) {
        admin!(self, ClearContested);
    }

    fn decay_breaks(&mut self) {
        admin!(self, DecayBreaks);
    }

    fn check(&self) -> Result<(), IndexError> {
        admin!(self, Check)
    }

    fn check_vms(&self, vms: &BTreeSet<VmId>) -> Result<(), IndexError> {
        admin!(self, CheckVms(vms.clone()))
    }

    fn extents(&self, vm: VmId, from: LinearIndex, extents: &mut Vec<Extent>) -> Batch {
        let (mut listed, batch) = admin!(self, Extents(vm, from));
        extents.append(&mut listed);
        batch
    }

    fn item_states(&self, vm: VmId, from: LinearIndex, states: &mut Vec<ItemState>) -> Batch {
        let (mut listed, batch) = admin!(self, ItemStates(vm, from));
        states.append(&mut listed);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_longer_than_what_was_asked_for_is_refused() {
        let mut room = [0; 3];
        let error = MessageError::TooMany { count: 4, room: 3 };
        assert_eq!(put(&[1, 2, 3, 4], &mut room), Err(error));
        assert_eq!(room, [0; 3]);
        assert_eq!(put(&[1, 2], &mut room), Ok(2));
        assert_eq!(room, [1, 2, 0]);
    }
}
