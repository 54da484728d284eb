//! The broker's half of the reverse walk: from a slot to the pages that share it.

use std::ops::ControlFlow;

use super::LocalBroker;
use super::ids::{ItemId, NodeId};
use super::rmap::RmapItem;
use crate::{LinearIndex, Slot, VmId};

impl LocalBroker {
    /// Calls `visit` with each page that shares a slot until it breaks; says whether it did, or
    /// `None` when the slot holds nothing. O(sharers), of which there are at most
    /// `max_page_sharing`.
    ///
    /// The linear index is the one that the page was registered with, never one worked out from an
    /// address: a page is found wherever its memory has moved since it was merged. A page that was
    /// written since its agent's last pass is still named.
    pub fn walk_slot(
        &self,
        slot: Slot,
        mut visit: impl FnMut(VmId, LinearIndex) -> ControlFlow<()>,
    ) -> Option<ControlFlow<()>> {
        let id = self.store.slots.node(slot)?;
        self.stable.node(id).filled_slot().filter(|&filled| filled == slot)?;
        let mut pages = self.sharers(id).map(|item| self.rmap.page(item));
        Some(pages.try_for_each(|(vm, linear)| visit(vm, linear)))
    }

    /// The items that share a node: nothing else in the broker finds them. O(items of the node).
    pub(super) fn sharers(&self, id: NodeId) -> impl Iterator<Item = ItemId> + '_ {
        let items = self.stable.items(&self.rmap, id);
        items.filter(|&item| matches!(self.rmap.item(item), RmapItem::Stable(_)))
    }
}
