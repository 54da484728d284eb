//! Directives: what is to become of pages that were not offered just now.

use std::collections::HashSet;

use super::LocalBroker;
use super::ids::ItemId;
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
        // Slots that are given out in this batch: its agent fills them before it joins.
        let mut given = HashSet::new();
        while directives.len() - before < limit
            && let Some(linear) = asked.pop()
        {
            let item = self.item(vm, linear)?;
            match self.answer(item, linear, &mut given) {
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
    fn answer(&mut self, item: ItemId, linear: LinearIndex, given: &mut HashSet<Slot>) -> Answer {
        match self.rmap.item(item) {
            RmapItem::Pending { link, role: Role::Waiting } => {
                let Some((slot, role)) = self.slot_for(link, given) else {
                    return Answer::Later;
                };
                self.rmap.set(item, RmapItem::Pending { link, role });
                Answer::Now(if role == Role::Creating {
                    Directive::Create { linear, slot }
                } else {
                    Directive::Merge { linear, slot }
                })
            }
            RmapItem::Stable(link) => {
                if let Some(slot) = self.tell_to_move(item) {
                    return Answer::Now(Directive::Merge { linear, slot });
                }
                if self.is_lone(link.node) {
                    Answer::Now(Directive::Unshare { linear })
                } else {
                    Answer::Never
                }
            }
            RmapItem::Pending { .. } | RmapItem::Loose(_) | RmapItem::Waiting(..) => Answer::Never,
        }
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
