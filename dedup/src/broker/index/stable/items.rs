//! The list of items that hangs on each node.

use super::StableTree;
use crate::broker::ids::{ItemId, NodeId};
use crate::broker::rmap::{Age, Link, Rmap, RmapItem, Role};

impl StableTree {
    /// Puts a loose item on the node's list, as proposed. O(log VMs) expected.
    pub(in crate::broker) fn propose(
        &mut self,
        rmap: &mut Rmap,
        id: NodeId,
        item: ItemId,
        role: Role,
    ) {
        let node = &mut self.nodes[id.index()];
        let link = Link { node: id, next: node.head, prev: None };
        relink(rmap, node.head, |head| head.prev = Some(item));
        node.head = Some(item);
        node.proposed += 1;
        let is_full = node.load() >= self.max_page_sharing;
        rmap.set(item, RmapItem::Proposed { link, role });
        self.proposed.add(rmap.page(item).0);
        if is_full {
            self.keep_place(id);
        }
    }

    /// Makes a proposed item stable; returns its node. O(log VMs).
    pub(in crate::broker) fn confirm(&mut self, rmap: &mut Rmap, item: ItemId) -> NodeId {
        let RmapItem::Proposed { link, .. } = rmap.item(item) else {
            unreachable!("only a proposed item is confirmed")
        };
        rmap.set(item, RmapItem::Stable(link));
        let node = &mut self.nodes[link.node.index()];
        self.left_alone_count -= u64::from(node.is_left_alone());
        node.proposed -= 1;
        node.sharers += 1;
        node.keeps_lone_sharer |= node.sharers == 2;
        self.left_alone_count += u64::from(node.is_left_alone());
        self.sharers += 1;
        self.shared += u64::from(node.sharers == 1);
        self.proposed.remove(rmap.page(item).0);
        link.node
    }

    /// Takes an item off its node's list and leaves it loose; returns the node. O(1) expected, or O(log VMs) if
    /// it is proposed.
    pub(in crate::broker) fn unlink(&mut self, rmap: &mut Rmap, item: ItemId) -> Option<NodeId> {
        let state = rmap.item(item);
        let link = *state.link()?;
        relink(rmap, link.next, |next| next.prev = link.prev);
        relink(rmap, link.prev, |prev| prev.next = link.next);
        let node = &mut self.nodes[link.node.index()];
        if node.head == Some(item) {
            node.head = link.next;
        }
        if let RmapItem::Stable(_) = state {
            self.left_alone_count -= u64::from(node.is_left_alone());
            node.sharers -= 1;
            self.left_alone_count += u64::from(node.is_left_alone());
            self.sharers -= 1;
            self.shared -= u64::from(node.sharers == 0);
        } else {
            node.proposed -= 1;
            self.proposed.remove(rmap.page(item).0);
        }
        let was_full = node.load() + 1 >= self.max_page_sharing;
        rmap.set(item, RmapItem::Loose(Age::NEW));
        if was_full {
            self.keep_place(link.node);
        }
        Some(link.node)
    }

    /// The items of a node, stable and proposed.
    pub(in crate::broker) fn items<'a>(
        &self,
        rmap: &'a Rmap,
        id: NodeId,
    ) -> impl Iterator<Item = ItemId> + use<'a> {
        rmap.list_from(self.node(id).head)
    }
}

/// Changes the link of a neighbour on a node's list, if there is one.
fn relink(rmap: &mut Rmap, neighbour: Option<ItemId>, change: impl FnOnce(&mut Link)) {
    let Some(id) = neighbour else { return };
    let item = rmap.item(id);
    if let Some(mut link) = item.link().copied() {
        change(&mut link);
        rmap.set(id, item.with_link(link));
    }
}
