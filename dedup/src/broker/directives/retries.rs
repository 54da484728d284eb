//! Pages whose slots were to be filled by others, which were deferred for want of VMAs and may be tried again.
//!
//! Who fills slots defers what its VMAs do not suffice for: the rest of a run, as a rule, of which it maps the next
//! part when it is known what the last one took. If the twins' VMs, in whose memory the pages may lie apart, filled
//! some of the rest meanwhile, the run would be full of holes, each of which takes VMAs. So the twins wait for as long as
//! what was deferred is being tried again, though not for ever: others may have VMAs to spare when who was to fill the
//! slots has none.
//!
//! What is tried again is offered once more, and keeps its place on its node until it is. Were it taken off, a page that
//! found no room there would come to be on the node, be it of a VM that may take no VMAs: what others gave back for the
//! first page would be taken by somebody else, and so on, pass after pass.

use std::collections::BTreeSet;

use crate::broker::LocalBroker;
use crate::broker::ids::{ItemId, NodeId};
use crate::broker::index::stable::node::Stage;
use crate::broker::rmap::{RmapItem, Role};
use crate::fingerprint::Fingerprint;
use crate::protocol::{BATCH, Decision};
use crate::{LinearIndex, VmId};

/// Passes in a row in which pages wait, at most: each takes about half of the VMAs that are left.
const MOST_PASSES: u32 = 16;

/// What is known of pages that wait for a retry.
#[derive(Debug, Default)]
pub(in crate::broker) struct Retries {
    /// VMs that may have such pages; has every VM that does.
    pub(in crate::broker) vms: BTreeSet<VmId>,
    /// VMs that such pages wait for.
    awaited_vms: BTreeSet<VmId>,
    /// VMs that may have pages that are about to be offered again; has every VM that does.
    pub(in crate::broker) retrying_vms: BTreeSet<VmId>,
    /// Whether one of them has taken back what it had deferred since the last pass looked at all pages.
    is_any: bool,
    /// For how many passes in a row such pages have waited.
    passes: u32,
}

impl Retries {
    /// Calls a VM by another number.
    pub(in crate::broker) fn rename(&mut self, vm: VmId, to: VmId) {
        for vms in [&mut self.vms, &mut self.awaited_vms, &mut self.retrying_vms] {
            if vms.remove(&vm) {
                vms.insert(to);
            }
        }
    }
}

impl LocalBroker {
    /// Defers an item whose agent is about to try it again. Pages that could fill a slot instead wait for that.
    /// O(items of the node · log VMs).
    pub(in crate::broker) fn defer_for_retry(&mut self, item: ItemId, id: NodeId) {
        self.defer(item, id);
        let RmapItem::Proposed { link, role: Role::Undirected } = self.rmap.item(item) else {
            return;
        };
        if self.stable.node(link.node).stage() == Stage::Matched {
            self.await_retry_of(item, link.node);
        }
    }

    /// Has those undirected items of a matched node wait that are not deferred, until `item`, which is, is tried again.
    /// O(items of the node · log VMs).
    fn await_retry_of(&mut self, item: ItemId, id: NodeId) {
        let others: Vec<ItemId> =
            self.items_in(id, Role::Undirected).filter(|&other| !self.is_deferred(other)).collect();
        if !others.is_empty() {
            self.retries.awaited_vms.insert(self.rmap.page(item).0);
        }
        for other in others {
            let (vm, linear) = self.rmap.page(other);
            self.owner_mut(other).queue.await_retry(linear);
            self.retries.vms.insert(vm);
        }
    }

    /// Has a page that was deferred keep its place, and no directive be due for it, until it is
    /// [offered](Self::retake_place) again or the visits of the pass are over; takes it out of the trees if it was not.
    /// O(log VMs), or what it costs to take it out.
    pub(in crate::broker) fn retry(&mut self, vm: VmId, linear: LinearIndex, item: ItemId) {
        if !self.is_deferred(item) {
            return self.remove_item(item);
        }
        self.retries.is_any |= self.retries.awaited_vms.contains(&vm);
        self.retries.retrying_vms.insert(vm);
        self.dequeue(item);
        self.owner_mut(item).queue.retry(linear);
    }

    /// Has a page that is offered again share the node that it has kept its place on, if that has its key, which is not
    /// contested; `None` if it has kept none there. O(log VMs), and O(1) while nothing is tried again.
    pub(in crate::broker) fn retake_place(
        &mut self,
        item: ItemId,
        key: Fingerprint,
    ) -> Option<Decision> {
        if self.retries.retrying_vms.is_empty() {
            return None;
        }
        let RmapItem::Proposed { link, role } = self.rmap.item(item) else { return None };
        let node = self.stable.node(link.node);
        let is_its_key = node.key == key && !self.contested.contains(key);
        if !is_its_key || !role.is_undirected() || !self.is_retried(item) {
            return None;
        }
        let filled_slot = node.filled_slot();
        self.end_deferral(item);
        let Some(slot) = filled_slot else {
            self.enqueue(item);
            return Some(Decision::Wait);
        };
        self.dequeue(item);
        self.rmap.set(item, RmapItem::Proposed { link, role: Role::Joining });
        Some(Decision::Join(slot))
    }

    /// Ends the visits of a pass; returns how many pages had to be taken out of the trees for that, as they were to be
    /// offered again and were not: [so many](BATCH) at most, and it is to be called again if there were any. If no agent
    /// that pages wait for has tried again what it had deferred, directives are due for these.
    /// O(VMs that have such pages · pages / 64), and what it costs to take pages out of the trees.
    pub fn end_visits(&mut self) -> u64 {
        let dropped_count = self.drop_retried();
        if dropped_count > 0 {
            return dropped_count;
        }
        let is_any = std::mem::take(&mut self.retries.is_any);
        self.retries.passes += 1;
        if is_any && self.retries.passes < MOST_PASSES && self.awaits_retries() {
            return 0;
        }
        for vm in std::mem::take(&mut self.retries).vms {
            if let Some(member) = self.members.get_mut(&vm) {
                member.queue.end_retries();
            }
        }
        0
    }

    /// Takes some of the pages out of the trees that were to be offered again and were not; returns how many.
    fn drop_retried(&mut self) -> u64 {
        while let Some(vm) = self.retries.retrying_vms.pop_first() {
            let Some(member) = self.members.get_mut(&vm) else { continue };
            let pages = member.queue.take_retried(BATCH);
            for &linear in &pages {
                if let Ok(item) = self.item(vm, linear) {
                    self.remove_item(item);
                }
            }
            if !pages.is_empty() {
                self.retries.retrying_vms.insert(vm);
                self.store.flush();
                return pages.len() as u64;
            }
        }
        0
    }

    /// Whether any page awaits a retry. O(VMs that may have such pages).
    pub fn awaits_retries(&self) -> bool {
        let mut members = self.retries.vms.iter().filter_map(|vm| self.members.get(vm));
        members.any(|member| member.queue.has_awaiting_retry())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE_SIZE;
    use crate::extents::Extent;
    use crate::protocol::{Broker, Decision, Directive, ItemState, Offer, Outcome};

    const VMS: [VmId; 2] = [VmId(0), VmId(1)];
    const THIRD: VmId = VmId(2);
    const PAGES: u32 = 3;

    fn page(number: u32) -> [u8; PAGE_SIZE] {
        let mut page = [1; PAGE_SIZE];
        page[..4].copy_from_slice(&number.to_le_bytes());
        page
    }

    fn offer(broker: &mut LocalBroker, vm: VmId, pages: impl Iterator<Item = u32>) {
        let fingerprint = |number| broker.secret().fingerprint(&page(number));
        let offers: Vec<Offer> = pages
            .map(|number| Offer { linear: LinearIndex(number), fingerprint: fingerprint(number) })
            .collect();
        broker.offer(vm, &offers, &mut Vec::new()).unwrap();
    }

    fn poll(broker: &mut LocalBroker, vm: VmId) -> Vec<Directive> {
        let mut directives = Vec::new();
        broker.directives(vm, 99, &mut directives).unwrap();
        broker.check().unwrap();
        directives
    }

    /// The first VM defers what it was to fill slots for.
    fn defer_for_retry(broker: &mut LocalBroker, expected: u32) {
        let directives = poll(broker, VMS[0]);
        assert_eq!(directives.len(), expected as usize);
        let outcomes = directives.iter().map(|directive| match *directive {
            Directive::Create { linear, slot, .. } => Outcome::DeferredForRetry { linear, slot },
            ref other => panic!("{other:?}"),
        });
        broker.report(VMS[0], &outcomes.collect::<Vec<_>>()).unwrap();
        broker.check().unwrap();
    }

    /// The first VM defers all its pages, which the second has, too.
    fn waiting() -> LocalBroker {
        let mut broker = LocalBroker::new(99, 256).unwrap();
        for vm in VMS {
            broker.register(vm, PAGES).unwrap();
            offer(&mut broker, vm, 0..PAGES);
        }
        defer_for_retry(&mut broker, PAGES);
        assert_eq!(poll(&mut broker, VMS[1]), []);
        assert!(broker.awaits_retries());
        broker
    }

    fn retry_first(broker: &mut LocalBroker) {
        broker.report(VMS[0], &[Outcome::Retried { linear: LinearIndex(0) }]).unwrap();
        offer(broker, VMS[0], 0..1);
        broker.end_visits();
    }

    fn created(directives: &[Directive]) -> Vec<u32> {
        let is_create = |directive: &&Directive| matches!(directive, Directive::Create { .. });
        directives.iter().filter(is_create).map(|directive| directive.linear().0).collect()
    }

    #[test]
    fn others_fill_no_slot_for_what_is_to_be_retried_before_a_pass_in_which_none_of_it_is_tried() {
        let mut broker = waiting();
        retry_first(&mut broker);
        defer_for_retry(&mut broker, 1);
        assert_eq!(poll(&mut broker, VMS[1]), []);
        broker.end_visits();
        assert!(!broker.awaits_retries());
        assert_eq!(created(&poll(&mut broker, VMS[1])), [0, 1, 2]);
    }

    #[test]
    fn others_do_not_wait_for_ever() {
        let mut broker = waiting();
        for _ in 1..MOST_PASSES {
            retry_first(&mut broker);
            defer_for_retry(&mut broker, 1);
            assert_eq!(poll(&mut broker, VMS[1]), []);
        }
        retry_first(&mut broker);
        defer_for_retry(&mut broker, 1);
        assert_eq!(created(&poll(&mut broker, VMS[1])), [1, 2]);
    }

    #[test]
    fn who_waits_for_a_retry_joins_the_slot_that_it_fills() {
        let mut broker = waiting();
        retry_first(&mut broker);
        let directives = poll(&mut broker, VMS[0]);
        let &[Directive::Create { linear, slot, .. }] = &directives[..] else {
            panic!("{directives:?}")
        };
        broker.fill(VMS[0], slot, &page(linear.0), &mut Vec::new()).unwrap();
        let merged = Outcome::Merged(Extent { linear, slot, page_count: 1 });
        broker.report(VMS[0], &[merged]).unwrap();
        let merge = Directive::Merge { linear, slot, awaited: true };
        assert_eq!(poll(&mut broker, VMS[1]), [merge]);
    }

    /// Three VMs of a page each, all with the same content, of which the first two are on a node that takes no more; the
    /// first has deferred its page and is about to offer it again.
    fn retried() -> LocalBroker {
        let mut broker = LocalBroker::new(99, 2).unwrap();
        for vm in [VMS[0], VMS[1], THIRD] {
            broker.register(vm, 1).unwrap();
            offer(&mut broker, vm, 0..1);
        }
        defer_for_retry(&mut broker, 1);
        assert_eq!([VMS[1], THIRD].map(|vm| poll(&mut broker, vm)), [[], []]);
        broker.report(VMS[0], &[Outcome::Retried { linear: LinearIndex(0) }]).unwrap();
        broker.check().unwrap();
        broker
    }

    #[test]
    fn a_page_that_is_tried_again_keeps_its_place_though_another_waits_for_one() {
        let mut broker = retried();
        assert_eq!(broker.item_state(VMS[0], LinearIndex(0)), ItemState::Retried);
        offer(&mut broker, VMS[0], 0..1);
        assert_eq!(broker.end_visits(), 0);
        assert_eq!(created(&poll(&mut broker, VMS[0])), [0]);
        assert_eq!(broker.item_state(THIRD, LinearIndex(0)), ItemState::Waiting);
    }

    #[test]
    fn a_page_that_is_not_offered_again_or_has_changed_leaves_its_place_to_one_that_waits() {
        type Leave = fn(&mut LocalBroker);
        let leave: [Leave; 3] = [
            |broker| assert_eq!([broker.end_visits(), broker.end_visits()], [1, 0]),
            |broker| {
                let fingerprint = broker.secret().fingerprint(&page(7));
                let changed = Offer { linear: LinearIndex(0), fingerprint };
                broker.offer(VMS[0], &[changed], &mut Vec::new()).unwrap();
            },
            |broker| broker.report(VMS[0], &[Outcome::Left { linear: LinearIndex(0) }]).unwrap(),
        ];
        for leave in leave {
            let mut broker = retried();
            leave(&mut broker);
            broker.check().unwrap();
            assert_eq!(broker.item_state(THIRD, LinearIndex(0)), ItemState::Proposed);
        }
    }

    #[test]
    fn a_page_that_is_tried_again_joins_a_slot_that_was_filled_meanwhile() {
        let mut broker = retried();
        // No page awaits the retry any more.
        broker.retries.is_any = false;
        broker.owner_mut(broker.item(VMS[1], LinearIndex(0)).unwrap()).queue.end_retries();
        let &[Directive::Create { slot, linear, .. }] = &poll(&mut broker, VMS[1])[..] else {
            panic!()
        };
        broker.fill(VMS[1], slot, &page(0), &mut Vec::new()).unwrap();
        let merged = Outcome::Merged(Extent { linear, slot, page_count: 1 });
        broker.report(VMS[1], &[merged]).unwrap();
        let fingerprint = broker.secret().fingerprint(&page(0));
        let mut decisions = Vec::new();
        broker.offer(VMS[0], &[Offer { linear, fingerprint }], &mut decisions).unwrap();
        assert_eq!(decisions, [Decision::Join(slot)]);
        broker.check().unwrap();
    }

    #[test]
    fn vms_that_wait_are_known_by_the_number_they_are_called() {
        const LATER: VmId = VmId(9);
        let mut broker = waiting();
        broker.rename(VMS[1], LATER);
        broker.check().unwrap();
        assert!(broker.awaits_retries());
        broker.end_visits();
        assert_eq!(created(&poll(&mut broker, LATER)), [0, 1, 2]);
    }
}
