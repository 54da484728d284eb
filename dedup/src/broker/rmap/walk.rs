//! The broker's half of the reverse walk: from a slot to the pages that share it.

#[cfg(any(test, feature = "internals"))]
use std::ops::ControlFlow;

use super::RmapItem;
use crate::broker::LocalBroker;
use crate::broker::ids::{ItemId, NodeId};
use crate::{LinearIndex, Slot, VmId};

impl LocalBroker {
    /// Calls `visit` with each page that shares a slot until it breaks; returns whether it did, or
    /// `None` when the slot holds nothing. O(sharers), of which there are at most
    /// `max_page_sharing`.
    ///
    /// The linear index is the one that the page was registered with, never one worked out from an
    /// address: a page is found wherever its memory has moved since it was merged. A page that was
    /// written since its agent's last pass is still one of them.
    #[cfg(any(test, feature = "internals"))]
    pub fn walk_slot(
        &self,
        slot: Slot,
        mut visit: impl FnMut(VmId, LinearIndex) -> ControlFlow<()>,
    ) -> Option<ControlFlow<()>> {
        let id = self.filled_node(slot)?;
        let mut pages = self.sharers(id).map(|item| self.rmap.page(item));
        Some(pages.try_for_each(|(vm, linear)| visit(vm, linear)))
    }

    /// Fills `pages` with pages that share a slot, from the first on or from the one after `after`; returns how
    /// many, or `None` when the slot holds nothing, or that page does not share it.
    pub(in crate::broker) fn sharers_after(
        &self,
        slot: Slot,
        after: Option<(VmId, LinearIndex)>,
        pages: &mut [(VmId, LinearIndex)],
    ) -> Option<usize> {
        let id = self.filled_node(slot)?;
        let Some((vm, linear)) = after else { return Some(self.put(self.sharers(id), pages)) };
        let RmapItem::Stable(link) = self.rmap.item(self.item(vm, linear).ok()?) else {
            return None;
        };
        let next = (link.node == id).then_some(link.next)?;
        Some(self.put(self.sharing(self.rmap.list_from(next)), pages))
    }

    /// Puts the pages of items where there is room for them; returns how many.
    fn put(&self, items: impl Iterator<Item = ItemId>, pages: &mut [(VmId, LinearIndex)]) -> usize {
        let places = pages.iter_mut().zip(items);
        places.map(|(place, item)| *place = self.rmap.page(item)).count()
    }

    /// How many pages share a slot. O(1).
    pub(in crate::broker) fn sharer_count(&self, slot: Slot) -> u64 {
        self.filled_node(slot).map_or(0, |id| u64::from(self.stable.node(id).sharers))
    }

    /// The node of a slot that holds bytes.
    pub(in crate::broker) fn filled_node(&self, slot: Slot) -> Option<NodeId> {
        let id = self.store.slots.node(slot)?;
        self.stable.node(id).filled_slot().filter(|&filled| filled == slot)?;
        Some(id)
    }

    /// The items that share a node. O(items of the node).
    pub(in crate::broker) fn sharers(&self, id: NodeId) -> impl Iterator<Item = ItemId> + '_ {
        self.sharing(self.stable.items(&self.rmap, id))
    }

    /// Those of items on a node's list that share it.
    fn sharing(&self, items: impl Iterator<Item = ItemId>) -> impl Iterator<Item = ItemId> {
        items.filter(|&item| matches!(self.rmap.item(item), RmapItem::Stable(_)))
    }
}
