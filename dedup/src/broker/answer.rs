//! What an agent answers: bytes for new slots, and what became of its pages.

use rayon::prelude::*;

use super::LocalBroker;
use super::ids::{ItemId, NodeId};
use super::rmap::RmapItem;
use crate::extents::Extent;
use crate::fingerprint::{Fingerprint, Identity};
use crate::protocol::{Broker, BrokerError, Decision, Directive, Offer, Outcome};
use crate::{LinearIndex, PAGE_SIZE, Slot, VmId};

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

    fn fill(
        &mut self,
        vm: VmId,
        first: Slot,
        pages: &[u8],
        accepted: &mut Vec<bool>,
    ) -> Result<(), BrokerError> {
        let (pages, rest) = pages.as_chunks::<PAGE_SIZE>();
        if !rest.is_empty() {
            return Err(BrokerError::BadLength(pages.len() * PAGE_SIZE + rest.len()));
        }
        let nodes: Vec<NodeId> = (first.0..)
            .take(pages.len())
            .map(|slot| self.node_to_fill(vm, Slot(slot)))
            .collect::<Result<_, _>>()?;
        let secret = &self.secret;
        let hashes: Vec<(Fingerprint, Identity)> = pages
            .par_iter()
            .map(|page| (secret.fingerprint(page), secret.identity(page)))
            .collect();
        let mut failure = None;
        for ((&id, page), (fingerprint, identity)) in nodes.iter().zip(pages).zip(hashes) {
            let (expected, slot) = {
                let node = self.stable.node(id);
                (node.fingerprint, node.slot)
            };
            let mut fits = fingerprint == expected && failure.is_none();
            if fits && let Err(error) = self.store.fill(slot, page) {
                failure = Some(error);
                fits = false;
            }
            if fits {
                let node = self.stable.node_mut(id);
                node.filled = true;
                node.identity = identity;
            } else {
                self.dissolve(id);
            }
            accepted.push(fits);
        }
        self.store.flush();
        failure.map_or(Ok(()), |error| Err(BrokerError::Store(error)))
    }

    fn report(&mut self, vm: VmId, outcomes: &[Outcome]) -> Result<(), BrokerError> {
        let result = outcomes.iter().try_for_each(|&outcome| self.apply(vm, outcome));
        self.store.flush();
        result
    }

    fn directives(&mut self, vm: VmId, directives: &mut Vec<Directive>) -> Result<(), BrokerError> {
        let mut directed = std::mem::take(&mut self.member_mut(vm)?.directed);
        directed.sort_unstable();
        directed.dedup();
        let mut unfilled = Vec::new();
        for linear in directed {
            // The state may have moved on since the page was noted: it says what holds now.
            match *self.rmap.item(self.item(vm, linear)?) {
                RmapItem::Pending { link, waited: true } => {
                    let node = self.stable.node(link.node);
                    if node.filled {
                        directives.push(Directive::Merge { linear, slot: node.slot });
                    } else {
                        unfilled.push(linear);
                    }
                }
                RmapItem::Stable(link) => {
                    let node = self.stable.node(link.node);
                    if node.sharers == 1 && node.pending == 0 && !node.paired {
                        directives.push(Directive::Unshare { linear });
                    }
                }
                RmapItem::Pending { .. } | RmapItem::Loose | RmapItem::Waiting(_) => {}
            }
        }
        self.member_mut(vm)?.directed = unfilled;
        Ok(())
    }

    fn unregister(&mut self, vm: VmId) -> Result<(), BrokerError> {
        let count_pages = self.member_mut(vm)?.items.count_pages();
        self.remove_all_items(vm);
        self.set_backing(vm, LinearIndex(0), None, count_pages);
        if let Some(member) = self.members.remove(&vm) {
            self.rmap.unregister(&member.items);
        }
        self.store.flush();
        Ok(())
    }
}

impl LocalBroker {
    fn apply(&mut self, vm: VmId, outcome: Outcome) -> Result<(), BrokerError> {
        match outcome {
            Outcome::Merged(run) => self.confirm(vm, run)?,
            Outcome::Declined { linear, slot } => {
                let item = self.item(vm, linear)?;
                // A node that came to nothing meanwhile has let the item go already.
                if self.pending_on(item, slot).is_some() {
                    self.remove_item(item);
                }
            }
            Outcome::Left { linear } => {
                let item = self.item(vm, linear)?;
                self.remove_item(item);
            }
            Outcome::Unbacked { linear, count_pages } => {
                let last = LinearIndex(linear.0.saturating_add(count_pages.saturating_sub(1)));
                self.item(vm, last)?;
                self.set_backing(vm, linear, None, count_pages);
            }
        }
        Ok(())
    }

    /// Makes pending items stable, and their VM lie over the run's slots.
    fn confirm(&mut self, vm: VmId, run: Extent) -> Result<(), BrokerError> {
        let items: Vec<ItemId> = (0..run.count_pages)
            .map(|offset| {
                let slot = run.slot.offset(offset);
                let item = self.item(vm, run.linear.offset(offset))?;
                match self.pending_on(item, slot) {
                    Some(id) if self.stable.node(id).filled => Ok(item),
                    _ => Err(BrokerError::BadSlot { vm, slot }),
                }
            })
            .collect::<Result<_, _>>()?;
        self.set_backing(vm, run.linear, Some(run.slot), run.count_pages);
        for item in items {
            let id = self.stable.confirm(&mut self.rmap, item);
            self.settle_node(id);
        }
        Ok(())
    }

    /// The node on which the item is pending, if that node's slot is `slot`.
    fn pending_on(&self, item: ItemId, slot: Slot) -> Option<NodeId> {
        match *self.rmap.item(item) {
            RmapItem::Pending { link, .. } if self.stable.node(link.node).slot == slot => {
                Some(link.node)
            }
            _ => None,
        }
    }

    /// The node of a slot that has no bytes yet and waits for those of a page of this VM.
    fn node_to_fill(&self, vm: VmId, slot: Slot) -> Result<NodeId, BrokerError> {
        let refused = BrokerError::BadSlot { vm, slot };
        let Some(id) = self.store.slots.node(slot) else {
            return Err(refused);
        };
        let proposed_to_vm = self.stable.items(&self.rmap, id).any(|item| {
            self.rmap.page(item).0 == vm
                && matches!(self.rmap.item(item), RmapItem::Pending { waited: false, .. })
        });
        if self.stable.node(id).filled || !proposed_to_vm { Err(refused) } else { Ok(id) }
    }
}
