//! Directives: what agents are to do with pages that were not offered just now.

mod fill;
pub(super) mod poll_queue;
pub(super) mod retries;

use crate::broker::LocalBroker;
use crate::broker::ids::{ItemId, NodeId};
use crate::broker::index::stable::node::Stage;
use crate::broker::rmap::{Link, RmapItem, Role};
use crate::id_set::IdSet;
use crate::protocol::{BrokerError, Directive, MAX_PARTNERS};
use crate::{LinearIndex, Slot, VmId};

/// What a poll finds for a page.
enum Polled {
    /// A directive for its agent.
    Directive(Directive),
    /// No directive yet: another agent must fill the slot first.
    Parked,
    /// No directive yet: the store is full.
    NoSlot,
    /// No directive any more.
    Nothing,
}

/// The last `Create`, which the next may go on from, be it in the next batch.
#[derive(Debug, Default)]
pub(super) struct LastCreate {
    /// Its page and its slot.
    page: Option<(VmId, LinearIndex, Slot)>,
    /// The page's partners, in the order of the node's list.
    partners: Vec<(VmId, LinearIndex)>,
}

impl LocalBroker {
    /// Appends directives that are due for a VM's pages, `limit` at most, in ascending order. What is on the poll queue
    /// is looked at page by page; a page that needs a slot which another agent fills, or for which the store has no
    /// room, stays on the queue for a later poll. O(n log n) in pages that are looked at, and O(pages of the VM / 64).
    ///
    /// # Errors
    ///
    /// An unknown VM; nothing was done.
    pub(in crate::broker) fn direct_all(
        &mut self,
        vm: VmId,
        limit: usize,
        directives: &mut Vec<Directive>,
    ) -> Result<(), BrokerError> {
        let room = self.store.slots.room();
        self.member_mut(vm)?.queue.begin_poll(room);
        let before = directives.len();
        // Slots that `Create`s of this batch have reserved: their agent fills them before it joins.
        let mut reserved = IdSet::default();
        let mut pages = Vec::new();
        while directives.len() - before < limit {
            let queue = &mut self.member_mut(vm)?.queue;
            let wanted = limit - (directives.len() - before);
            pages.extend(std::iter::from_fn(|| queue.pop()).take(wanted));
            // Directives ascend, so that one call is of one round, unless that has none left.
            if pages.is_empty() && (directives.len() > before || !queue.begin_round()) {
                break;
            }
            self.polled_pages += pages.len() as u64;
            for linear in pages.drain(..) {
                let item = self.item(vm, linear)?;
                match self.poll_page(item, linear, &mut reserved) {
                    Polled::Directive(directive) => {
                        self.end_deferral(item);
                        directives.push(directive);
                    }
                    Polled::Parked => self.member_mut(vm)?.queue.park(linear),
                    Polled::NoSlot => {
                        self.lacking_vms.insert(vm);
                        self.member_mut(vm)?.queue.set_lacking(linear);
                    }
                    Polled::Nothing => {}
                }
            }
        }
        Ok(())
    }

    /// The directive for a page that was due, by its present state, which may have changed since it was enqueued.
    fn poll_page(
        &mut self,
        item: ItemId,
        linear: LinearIndex,
        reserved: &mut IdSet<Slot>,
    ) -> Polled {
        match self.rmap.item(item) {
            RmapItem::Proposed { link, role: before } if before.is_undirected() => {
                let (slot, role) = match self.slot_for(link, reserved) {
                    Ok(place) => place,
                    Err(polled) => return polled,
                };
                self.rmap.set(item, RmapItem::Proposed { link, role });
                Polled::Directive(if role == Role::Creating {
                    let (partners, apart) = self.count_partners_of_create(item, link.node, slot);
                    Directive::Create { linear, slot, partners, apart }
                } else {
                    let may_be_pledged = before == Role::Undirected;
                    let awaited =
                        may_be_pledged && self.stable.node(link.node).sharers <= MAX_PARTNERS;
                    Directive::Merge { linear, slot, awaited }
                })
            }
            RmapItem::Stable(link) => {
                if let Some(slot) = self.direct_to_move(item) {
                    return Polled::Directive(Directive::Merge { linear, slot, awaited: false });
                }
                if self.has_sharer_to_unshare(link.node) {
                    Polled::Directive(Directive::Unshare { linear })
                } else {
                    Polled::Nothing
                }
            }
            RmapItem::Collided(..) => Polled::Directive(Directive::Offer { linear }),
            RmapItem::Proposed { .. } | RmapItem::Loose(_) | RmapItem::Waiting(..) => {
                Polled::Nothing
            }
        }
    }

    /// How many partners a page that is to fill a node's slot has, [so many](MAX_PARTNERS) at most, and how many of
    /// them do not follow right on those of the page that was directed to before it, as page and slot on that one's.
    /// Those that do stand at the same places of both nodes' lists, as runs are offered in order. O(partners).
    fn count_partners_of_create(&mut self, item: ItemId, node: NodeId, slot: Slot) -> (u32, u32) {
        let others = self.stable.items(&self.rmap, node).filter(|&other| other != item);
        let partners: Vec<_> =
            others.take(MAX_PARTNERS as usize).map(|other| self.rmap.page(other)).collect();
        let count = |len| u32::try_from(len).unwrap_or(MAX_PARTNERS);
        let all = count(partners.len());
        let (vm, linear) = self.rmap.page(item);
        let create = LastCreate { page: Some((vm, linear, slot)), partners };
        let before = std::mem::replace(&mut self.last_create, create);
        let follows = before.page.map(|(vm, page, slot)| (vm, page.offset(1), slot.offset(1)))
            == self.last_create.page;
        let pairs = before.partners.iter().zip(&self.last_create.partners);
        let joined = pairs.filter(|((vm, page), next)| (*vm, page.offset(1)) == **next);
        (all, if follows { all - count(joined.count()) } else { all })
    }

    /// The slot that an undirected item can be mapped to now, and in which role, or why there is none.
    fn slot_for(&mut self, link: Link, reserved: &mut IdSet<Slot>) -> Result<(Slot, Role), Polled> {
        let node = self.stable.node(link.node);
        match (node.stage(), node.slot()) {
            (Stage::Matched, _) | (_, None) => {
                let slot = self.store.slots.allocate().ok_or(Polled::NoSlot)?;
                self.store.slots.set_node(slot, link.node);
                self.stable.node_mut(link.node).reserve(slot);
                reserved.insert(slot);
                self.end_lack(link.node);
                Ok((slot, Role::Creating))
            }
            (Stage::Filled, Some(slot)) => Ok((slot, Role::Joining)),
            (Stage::Reserved, Some(slot)) => {
                reserved.contains(&slot).then_some((slot, Role::Joining)).ok_or(Polled::Parked)
            }
        }
    }

    /// Has the pages of a node be due that lack a slot.
    /// O(1), or, while pages lack slots, O(items of the node · log VMs) amortized.
    fn end_lack(&mut self, id: NodeId) {
        // Each VM that lacks none any more is left out once, and none is looked at beyond the first that
        // does.
        while let Some(vm) = self.lacking_vms.first()
            && !self.members.get(vm).is_some_and(|member| member.queue.has_lacking())
        {
            self.lacking_vms.pop_first();
        }
        if self.lacking_vms.is_empty() {
            return;
        }
        let undirected: Vec<ItemId> = self.items_in(id, Role::Undirected).collect();
        for item in undirected {
            let (_, linear) = self.rmap.page(item);
            self.owner_mut(item).queue.end_lack(linear);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE_SIZE;
    use crate::extents::Extent;
    use crate::protocol::{Broker, Decision, Offer, Outcome};

    const VMS: [VmId; 2] = [VmId(0), VmId(1)];

    fn page(number: u32) -> [u8; PAGE_SIZE] {
        let mut page = [1; PAGE_SIZE];
        page[..4].copy_from_slice(&number.to_le_bytes());
        page
    }

    /// A domain with room for so many slots, in which so many pages of one VM have a twin in another.
    fn matched(slot_count: u32, pairs: u32) -> LocalBroker {
        let mut broker = LocalBroker::new(slot_count, 256).unwrap();
        for vm in VMS {
            broker.register(vm, pairs).unwrap();
            let fingerprint = |number| broker.secret().fingerprint(&page(number));
            let offers: Vec<Offer> = (0..pairs)
                .map(|number| Offer {
                    linear: LinearIndex(number),
                    fingerprint: fingerprint(number),
                })
                .collect();
            let mut decisions = Vec::<Decision>::new();
            broker.offer(vm, &offers, &mut decisions).unwrap();
        }
        broker
    }

    fn poll(broker: &mut LocalBroker, vm: VmId, limit: usize) -> (Vec<Directive>, u64) {
        let before = broker.polled_pages();
        let mut directives = Vec::new();
        broker.directives(vm, limit, &mut directives).unwrap();
        broker.check().unwrap();
        (directives, broker.polled_pages() - before)
    }

    #[test]
    fn a_poll_after_a_decline_looks_at_no_more_pages_than_it_gives_directives_for() {
        const PAIRS: u32 = 200;
        let mut broker = matched(1 << 10, PAIRS);
        for number in 0..PAIRS {
            let (directives, looked) = poll(&mut broker, VMS[0], 1);
            let &[Directive::Create { linear, slot, .. }] = &directives[..] else { panic!() };
            assert_eq!((linear, looked), (LinearIndex(number), 1));
            broker.report(VMS[0], &[Outcome::Declined { linear, slot }]).unwrap();
        }
    }

    #[test]
    fn what_goes_on_from_the_last_batch_is_known_to_have_its_partners_side_by_side() {
        let mut broker = matched(9, 3);
        for (number, apart) in [(0, 1), (1, 0), (2, 0)] {
            let (linear, slot) = (LinearIndex(number), Slot(number));
            let expected = Directive::Create { linear, slot, partners: 1, apart };
            assert_eq!(poll(&mut broker, VMS[0], 1).0, [expected]);
        }
    }

    // A page that took the place of another was mapped by what nobody had pledged for it.
    #[test]
    fn nothing_is_set_aside_for_a_page_that_comes_when_the_slot_has_been_filled() {
        const PAGES: u32 = 3;
        let (vm, [first, second, third]) = (VMS[0], [0, 1, 2].map(LinearIndex));
        let mut broker = LocalBroker::new(9, 2).unwrap();
        broker.register(vm, PAGES).unwrap();
        let fingerprint = broker.secret().fingerprint(&page(1));
        let offers = [first, second, third].map(|linear| Offer { linear, fingerprint });
        broker.offer(vm, &offers, &mut Vec::new()).unwrap();
        let (directives, _) = poll(&mut broker, vm, 1);
        let &[Directive::Create { slot, .. }] = &directives[..] else { panic!("{directives:?}") };
        broker.fill(vm, slot, &page(1), &mut Vec::new()).unwrap();
        let merged = |linear| [Outcome::Merged(Extent { linear, slot, page_count: 1 })];
        broker.report(vm, &merged(first)).unwrap();
        let merge = |linear, awaited| vec![Directive::Merge { linear, slot, awaited }];
        assert_eq!(poll(&mut broker, vm, 99).0, merge(second, true));
        broker.report(vm, &merged(second)).unwrap();
        assert_eq!(poll(&mut broker, vm, 99).0, [], "two are as many as share a slot");
        broker.report(vm, &[Outcome::Yielded { linear: first }]).unwrap();
        assert_eq!(poll(&mut broker, vm, 99).0, merge(third, false));
    }

    #[test]
    fn a_full_store_is_not_asked_again_for_what_waits_until_a_slot_is_free() {
        const PAIRS: u32 = 200;
        let mut broker = matched(1, PAIRS);
        let (linear, slot) = (LinearIndex(0), Slot(0));
        let (directives, looked) = poll(&mut broker, VMS[0], 999);
        assert_eq!(directives, [Directive::Create { linear, slot, partners: 1, apart: 1 }]);
        assert_eq!(looked, u64::from(PAIRS));
        broker.fill(VMS[0], slot, &page(0), &mut Vec::new()).unwrap();
        let merged = [Outcome::Merged(Extent { linear, slot, page_count: 1 })];
        broker.report(VMS[0], &merged).unwrap();
        assert_eq!(poll(&mut broker, VMS[0], 999), (vec![], 0), "nothing is free");
        let (directives, _) = poll(&mut broker, VMS[1], 999);
        assert_eq!(directives, [Directive::Merge { linear, slot, awaited: true }]);
        broker.report(VMS[1], &merged).unwrap();
        assert_eq!(poll(&mut broker, VMS[1], 999), (vec![], 0));

        for vm in VMS {
            broker.report(vm, &[Outcome::Left { linear }]).unwrap();
            broker.report(vm, &[Outcome::Unbacked { linear, page_count: 1 }]).unwrap();
        }
        let (directives, looked) = poll(&mut broker, VMS[0], 999);
        let next = LinearIndex(1);
        assert_eq!(directives, [Directive::Create { linear: next, slot, partners: 1, apart: 1 }]);
        assert_eq!(looked, 1, "there is room for one");
        broker.fill(VMS[0], slot, &page(1), &mut Vec::new()).unwrap();
        let merged = [Outcome::Merged(Extent { linear: next, slot, page_count: 1 })];
        broker.report(VMS[0], &merged).unwrap();
        let (directives, looked) = poll(&mut broker, VMS[1], 999);
        assert_eq!(directives, [Directive::Merge { linear: next, slot, awaited: true }]);
        assert_eq!(looked, 1, "its content has a slot now");
    }

    #[test]
    fn vms_that_lack_slots_are_known_by_the_number_they_are_called_and_no_others_are_looked_at() {
        const LATER: VmId = VmId(9);
        let mut broker = matched(1, 3);
        (1000..2000).for_each(|id| broker.register(VmId(id), 1).unwrap());
        let (linear, slot) = (LinearIndex(0), Slot(0));
        poll(&mut broker, VMS[0], 999);
        broker.fill(VMS[0], slot, &page(0), &mut Vec::new()).unwrap();
        let merged = [Outcome::Merged(Extent { linear, slot, page_count: 1 })];
        broker.report(VMS[0], &merged).unwrap();
        assert!(broker.lacking_vms.iter().eq(&VMS[..1]));
        broker.rename(VMS[0], LATER);
        broker.check().unwrap();
        assert!(broker.lacking_vms.iter().eq(&[LATER]));
        // Its pages of which there is no slot are gone, so the next slot that is reserved ends the lack.
        let [second, third] = [1, 2].map(LinearIndex);
        for linear in [linear, second, third] {
            broker.report(LATER, &[Outcome::Left { linear }]).unwrap();
        }
        broker.report(VMS[1], &[Outcome::Left { linear }]).unwrap();
        broker.report(LATER, &[Outcome::Unbacked { linear, page_count: 1 }]).unwrap();
        let fingerprint = broker.secret().fingerprint(&page(7));
        let offers = [0, 1].map(|number| Offer { linear: LinearIndex(number), fingerprint });
        broker.offer(LATER, &offers, &mut Vec::new()).unwrap();
        poll(&mut broker, LATER, 1);
        assert!(broker.lacking_vms.is_empty());
    }

    #[test]
    fn a_page_that_is_gone_takes_no_turn_of_those_that_wait_for_room_in_the_store() {
        let mut broker = matched(1, 3);
        let (linear, slot) = (LinearIndex(0), Slot(0));
        poll(&mut broker, VMS[0], 999);
        broker.fill(VMS[0], slot, &page(0), &mut Vec::new()).unwrap();
        let merged = [Outcome::Merged(Extent { linear, slot, page_count: 1 })];
        broker.report(VMS[0], &merged).unwrap();
        // One of the two pages for which there is no slot is written, then there is room for one.
        broker.report(VMS[0], &[Outcome::Left { linear: LinearIndex(1) }]).unwrap();
        for vm in VMS {
            broker.report(vm, &[Outcome::Left { linear }]).unwrap();
        }
        broker.report(VMS[0], &[Outcome::Unbacked { linear, page_count: 1 }]).unwrap();
        let next = LinearIndex(2);
        let (directives, _) = poll(&mut broker, VMS[0], 999);
        assert_eq!(directives, [Directive::Create { linear: next, slot, partners: 1, apart: 1 }]);
    }
}
