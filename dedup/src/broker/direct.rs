//! Directives: what is to become of pages that were not offered just now.

use std::collections::HashSet;

use super::LocalBroker;
use super::ids::{ItemId, NodeId};
use super::rmap::{Link, RmapItem, Role};
use super::stable_node::Stage;
use crate::protocol::{BrokerError, Directive};
use crate::{LinearIndex, Slot, VmId};

/// What there is to say about a page whose agent asks.
enum Answer {
    /// This.
    Now(Directive),
    /// Nothing yet: another agent must fill the slot first, or the store is full.
    Later,
    /// Nothing any more.
    Never,
}

/// What was said before in one batch of directives.
#[derive(Default)]
struct Batch {
    /// Slots that were given out: their agent fills them before it joins.
    given: HashSet<Slot>,
    /// Nodes whose first partner was told to come.
    awaiting: HashSet<NodeId>,
    /// The last page that was told to create, and its first partner.
    created: Option<(LinearIndex, (VmId, LinearIndex))>,
}

impl LocalBroker {
    pub(super) fn direct_all(
        &mut self,
        vm: VmId,
        limit: usize,
        directives: &mut Vec<Directive>,
    ) -> Result<(), BrokerError> {
        let member = self.member_mut(vm)?;
        let mut asked = std::mem::take(&mut member.asked);
        if asked.is_empty() {
            member.directed.append(&mut std::mem::take(&mut member.later));
        }
        if !member.directed.is_empty() {
            // Taken, not drained: a list that is as long as a VM's pages is not kept for good.
            asked.append(&mut std::mem::take(&mut member.directed));
            // Slots are given out in this order, so that neighbours get neighbouring slots.
            asked.sort_unstable_by(|one, other| other.cmp(one));
            asked.dedup();
        }
        let before = directives.len();
        let mut batch = Batch::default();
        while directives.len() - before < limit
            && let Some(linear) = asked.pop()
        {
            let item = self.item(vm, linear)?;
            match self.answer(item, linear, &mut batch) {
                Answer::Now(directive) => directives.push(directive),
                Answer::Later => self.member_mut(vm)?.later.push(linear),
                Answer::Never => {}
            }
        }
        if asked.is_empty() {
            asked = Vec::new();
        }
        self.member_mut(vm)?.asked = asked;
        Ok(())
    }

    /// The state may have moved on since the page was noted: what holds now counts.
    fn answer(&mut self, item: ItemId, linear: LinearIndex, batch: &mut Batch) -> Answer {
        match self.rmap.item(item) {
            RmapItem::Pending { link, role: Role::Waiting } => {
                let Some((slot, role)) = self.slot_for(link, &mut batch.given) else {
                    return Answer::Later;
                };
                self.rmap.set(item, RmapItem::Pending { link, role });
                Answer::Now(if role == Role::Creating {
                    let continues = self.continues(item, linear, link.node, batch);
                    Directive::Create { linear, slot, continues }
                } else {
                    let awaited = self.is_unpaired(link.node) && batch.awaiting.insert(link.node);
                    Directive::Merge { linear, slot, awaited }
                })
            }
            RmapItem::Stable(link) => {
                if let Some(slot) = self.tell_to_move(item) {
                    return Answer::Now(Directive::Merge { linear, slot, awaited: false });
                }
                if self.is_lone(link.node) {
                    Answer::Now(Directive::Unshare { linear })
                } else {
                    Answer::Never
                }
            }
            RmapItem::Declined(..) => Answer::Now(Directive::Offer { linear }),
            RmapItem::Pending { .. } | RmapItem::Loose(_) | RmapItem::Waiting(..) => Answer::Never,
        }
    }

    /// Whether a page that is to create a node, and its first partner, follow right on those of the
    /// page that was told to before it. O(1).
    fn continues(
        &self,
        item: ItemId,
        linear: LinearIndex,
        node: NodeId,
        batch: &mut Batch,
    ) -> bool {
        let mut items = self.stable.items(&self.rmap, node);
        let partner = items.find(|&other| other != item).map(|other| self.rmap.page(other));
        let before = batch.created.take();
        batch.created = partner.map(|partner| (linear, partner));
        let (Some((page, (vm, other))), Some((partner_vm, partner))) = (before, partner) else {
            return false;
        };
        page.offset(1) == linear && vm == partner_vm && other.offset(1) == partner
    }

    /// Whether a node is still to get its first partner.
    fn is_unpaired(&self, id: NodeId) -> bool {
        let node = self.stable.node(id);
        node.sharers <= 1 && !node.paired
    }

    /// The slot that a waiting item can go to now, and as what.
    fn slot_for(&mut self, link: Link, given: &mut HashSet<Slot>) -> Option<(Slot, Role)> {
        let node = self.stable.node(link.node);
        match (node.stage(), node.slot()) {
            (Stage::Matched, _) | (_, None) => {
                let slot = self.store.slots.allocate()?;
                self.store.slots.set_node(slot, link.node);
                self.stable.node_mut(link.node).reserve(slot);
                given.insert(slot);
                Some((slot, Role::Creating))
            }
            (Stage::Filled, Some(slot)) => Some((slot, Role::Joining)),
            (Stage::Reserved, Some(slot)) => given.contains(&slot).then_some((slot, Role::Joining)),
        }
    }
}
