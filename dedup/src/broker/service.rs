//! The calls of agents: `protocol::Broker`. Offers, ages, bytes for new slots, outcomes and polls for directives.

use super::LocalBroker;
use super::ids::{ItemId, NodeId};
use super::index::stable::node::Stage;
use super::rmap::{RmapItem, Role};
use crate::extents::Extent;
use crate::protocol::{
    Broker, BrokerError, Decision, Directive, IdentityOffer, Offer, Outcome, ReportError,
};
use crate::{LinearIndex, Slot, VmId};

impl Broker for LocalBroker {
    fn offer(
        &mut self,
        vm: VmId,
        offers: &[Offer],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), BrokerError> {
        let result = self.decide_all(vm, offers, decisions);
        self.store.flush();
        result
    }

    fn offer_by_identity(
        &mut self,
        vm: VmId,
        offers: &[IdentityOffer],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), BrokerError> {
        let result = self.decide_all_by_identity(vm, offers, decisions);
        self.store.flush();
        result
    }

    fn fill(
        &mut self,
        vm: VmId,
        first: Slot,
        pages: &[u8],
        accepted: &mut Vec<bool>,
    ) -> Result<(), BrokerError> {
        let result = self.fill_slots(vm, first, pages, accepted);
        self.store.flush();
        result
    }

    fn age(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        skip: &mut Vec<bool>,
    ) -> Result<(), BrokerError> {
        self.age_pages(vm, pages, skip)
    }

    fn report(&mut self, vm: VmId, outcomes: &[Outcome]) -> Result<(), ReportError> {
        let result = outcomes.iter().enumerate().try_for_each(|(done, &outcome)| {
            self.apply(vm, outcome).map_err(|source| ReportError { done, source })
        });
        self.store.flush();
        result
    }

    fn directives(
        &mut self,
        vm: VmId,
        limit: usize,
        directives: &mut Vec<Directive>,
    ) -> Result<(), BrokerError> {
        self.direct_all(vm, limit, directives)
    }

    fn partners(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        partners: &mut Vec<Option<VmId>>,
    ) -> Result<(), BrokerError> {
        let items: Vec<ItemId> =
            self.items(vm, pages.iter().copied())?.collect::<Result<_, _>>()?;
        partners.extend(items.into_iter().map(|item| self.partner(item)));
        Ok(())
    }

    fn unregister(&mut self, vm: VmId) -> Result<(), BrokerError> {
        let page_count = self.member_mut(vm)?.items.page_count();
        self.remove_all_items(vm);
        self.set_backing(vm, LinearIndex(0), None, page_count);
        if let Some(member) = self.members.remove(&vm) {
            self.rmap.unregister(&member.items);
        }
        self.store.flush();
        Ok(())
    }
}

impl LocalBroker {
    /// Applies one outcome, which also answers the directive to move that its page may have. `Declined`, `Deferred`,
    /// `DeferredForRetry` and `Differs` of such a page leave it `Stable` on the node that it shares: it is proposed to
    /// none. If it was not moved because it was written, its `Broken` follows.
    /// O(log n) a page; where a slot that was reserved is not filled after all, O(items of its node · log VMs).
    fn apply(&mut self, vm: VmId, outcome: Outcome) -> Result<(), BrokerError> {
        match outcome {
            Outcome::Merged(run) => self.confirm(vm, run)?,
            Outcome::Declined { linear, slot } => {
                let item = self.item(vm, linear)?;
                self.acknowledge(vm, linear, 1);
                // If the slot was abandoned meanwhile, the item is off the node's list already.
                if self.proposed_to(item, slot).is_some() {
                    self.remove_item(item);
                }
            }
            Outcome::Deferred { linear, slot } => {
                let item = self.item(vm, linear)?;
                self.acknowledge(vm, linear, 1);
                if let Some(node) = self.proposed_to(item, slot) {
                    self.defer(item, node);
                }
            }
            Outcome::DeferredForRetry { linear, slot } => {
                let item = self.item(vm, linear)?;
                self.acknowledge(vm, linear, 1);
                if let Some(node) = self.proposed_to(item, slot) {
                    self.defer_for_retry(item, node);
                }
            }
            Outcome::Retried { linear } => {
                let item = self.item(vm, linear)?;
                self.acknowledge(vm, linear, 1);
                self.retry(vm, linear, item);
            }
            Outcome::Differs { linear, slot } => {
                let item = self.item(vm, linear)?;
                self.acknowledge(vm, linear, 1);
                if let Some(node) = self.proposed_to(item, slot) {
                    self.note_difference(item, node);
                }
            }
            Outcome::Left { linear } => {
                let item = self.item(vm, linear)?;
                self.acknowledge(vm, linear, 1);
                self.remove_item(item);
            }
            Outcome::Broken { linear } => {
                let item = self.item(vm, linear)?;
                self.acknowledge(vm, linear, 1);
                self.note_broken(vm, linear, item);
            }
            Outcome::Yielded { linear } => {
                let item = self.item(vm, linear)?;
                self.acknowledge(vm, linear, 1);
                self.mark_partner_to_unshare(item);
                self.remove_item(item);
            }
            Outcome::Unbacked { linear, page_count } => {
                let last = LinearIndex(linear.0.saturating_add(page_count.saturating_sub(1)));
                self.item(vm, last)?;
                self.shares_none(vm, linear, last)?;
                self.set_backing(vm, linear, None, page_count);
            }
        }
        Ok(())
    }

    /// Refuses pages from `first` to `last` if any shares a slot: it must be reported as broken or left first.
    fn shares_none(
        &self,
        vm: VmId,
        first: LinearIndex,
        last: LinearIndex,
    ) -> Result<(), BrokerError> {
        for linear in (first.0..=last.0).map(LinearIndex) {
            if let RmapItem::Stable(_) = self.rmap.item(self.item(vm, linear)?) {
                return Err(BrokerError::StillShared { vm, linear });
            }
        }
        Ok(())
    }

    /// Makes proposed items stable, and moves stable ones; their pages cover the run's slots from now on.
    /// O(pages · log n).
    fn confirm(&mut self, vm: VmId, run: Extent) -> Result<(), BrokerError> {
        let pages = (0..run.page_count).map(|offset| run.linear.offset(offset));
        let items: Vec<ItemId> = self
            .items(vm, pages)?
            .zip(0..)
            .map(|(item, offset)| {
                let (item, slot) = (item?, run.slot.offset(offset));
                let joins = self
                    .proposed_to(item, slot)
                    .is_some_and(|id| self.stable.node(id).stage() == Stage::Filled);
                if joins || self.moving_to(item, slot).is_some() {
                    Ok(item)
                } else {
                    Err(BrokerError::BadSlot { vm, slot })
                }
            })
            .collect::<Result<_, _>>()?;
        self.acknowledge(vm, run.linear, run.page_count);
        self.set_backing(vm, run.linear, Some(run.slot), run.page_count);
        for (item, offset) in items.into_iter().zip(0..) {
            if let Some(target) = self.moving_to(item, run.slot.offset(offset)) {
                self.transfer(item, target);
            } else {
                let id = self.stable.confirm(&mut self.rmap, item);
                self.dissolve_or_unshare_node(id);
            }
        }
        Ok(())
    }

    /// The node at `slot`, if the item's sharing is being moved there.
    fn moving_to(&self, item: ItemId, slot: Slot) -> Option<NodeId> {
        if self.moves.is_empty() {
            return None;
        }
        let RmapItem::Stable(link) = self.rmap.item(item) else { return None };
        let (target, target_slot) = self.move_target(link.node)?;
        (target_slot == slot).then_some(target)
    }

    /// The node that the item is proposed to, if that node's slot is `slot`.
    fn proposed_to(&self, item: ItemId, slot: Slot) -> Option<NodeId> {
        match self.rmap.item(item) {
            RmapItem::Proposed { link, role: Role::Creating | Role::Joining }
                if self.stable.node(link.node).slot() == Some(slot) =>
            {
                Some(link.node)
            }
            _ => None,
        }
    }

    /// Whose page is the only other one that shares an item's slot. O(items of the node): items that are proposed
    /// to it may come before the two sharers on its list.
    fn partner(&self, item: ItemId) -> Option<VmId> {
        let RmapItem::Stable(link) = self.rmap.item(item) else { return None };
        if self.stable.node(link.node).sharers != 2 {
            return None;
        }
        let mut sharers = self.sharers(link.node);
        sharers.find(|&other| other != item).map(|other| self.rmap.page(other).0)
    }
}
