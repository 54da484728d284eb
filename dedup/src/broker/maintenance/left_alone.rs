//! Pages that are left alone with their slots, made private when VMAs are short.
//!
//! A page whose partners were written, or were removed, keeps its slot, as KSM's does: a new partner may join it. It
//! saves nothing. So where others are deferred for want of VMAs, it is made private, if that gives any back: its
//! whole extent comes back at once, when none of its pages shares its slot. Among pages that are shared it costs no
//! VMA, and a new slot would.

use crate::VmId;
use crate::broker::LocalBroker;
use crate::broker::ids::{ItemId, NodeId};
use crate::broker::rmap::RmapItem;
use crate::extents::Extent;
use crate::page_range::PageRange;
use crate::protocol::Batch;

/// Nodes that a call looks at, at most.
const LOOKED_NODES: usize = 1 << 16;

/// Nodes of pages that are left alone that it considers, at most.
const LEFT_PAGES: usize = 1 << 11;

/// Once so many pages of their extents have been looked at, it looks at no other.
const LOOKED_PAGES: u32 = 1 << 14;

/// Longer extents stay: they have few VMAs for their pages.
const LONGEST_PAGES: u32 = 1 << 7;

/// Where the search for such pages stands.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::broker) struct LeftAloneSearch {
    /// The index of the node from which it goes on.
    from: usize,
    /// Whether it has found any since it began.
    has_found: bool,
    /// How many pages were left alone when the last one that found none began.
    vain: Option<u64>,
    /// How many were when this one began.
    began_with: u64,
}

impl LocalBroker {
    /// Has pages that share their slots with nobody any more be made private where that gives VMAs back, going on
    /// where the last call ended; returns whether there may be others.
    /// [`directives`](crate::protocol::Broker::directives) have their agents do it. O(1): 65,536 nodes and some
    /// 16,384 pages at most.
    pub fn unshare_left_alone(&mut self) -> Batch {
        let left_count = self.stable.left_alone_count;
        let from = std::mem::take(&mut self.left_alone.from);
        if from == 0 || left_count == 0 {
            (self.left_alone.has_found, self.left_alone.began_with) = (false, left_count);
        }
        if left_count == 0 {
            return Batch::Last;
        }
        let end = self.stable.end();
        let looked = from.min(end)..end.min(from + LOOKED_NODES);
        let mut next = looked.end;
        let found: Vec<_> = self.stable.left_alone_within(looked).take(LEFT_PAGES).collect();
        if let Some(last) = found.get(LEFT_PAGES - 1) {
            next = last.index() + 1;
        }
        // Pages side by side have nodes side by side, as a rule.
        let (mut known, mut looked_pages) = (None, 0);
        for id in found {
            if looked_pages >= LOOKED_PAGES {
                next = id.index();
                break;
            }
            let Some((vm, extent)) = self.extent_of(id) else { continue };
            let is_alone = match known {
                Some((of, is_alone)) if of == (vm, extent) => is_alone,
                _ => self.is_alone(vm, extent, &mut looked_pages),
            };
            known = Some(((vm, extent), is_alone));
            if is_alone {
                self.left_alone.has_found = true;
                self.stable.mark_left_alone_to_unshare(id);
                self.dissolve_or_unshare_node(id);
            }
        }
        if next < end {
            self.left_alone.from = next;
            // The last search found none among as many pages, so the caller need not go on with this one now.
            let is_vain = !self.left_alone.has_found && self.left_alone.vain == Some(left_count);
            return if is_vain { Batch::Last } else { Batch::More };
        }
        let LeftAloneSearch { has_found, began_with, .. } = self.left_alone;
        self.left_alone.vain = (!has_found).then_some(began_with);
        Batch::Last
    }

    /// The extent that the only sharer of a node lies in, unless others are about to come. O(log extents).
    fn extent_of(&self, id: NodeId) -> Option<(VmId, Extent)> {
        if self.stable.node(id).proposed > 0 {
            return None;
        }
        let item = self.sharers(id).next()?;
        let (vm, linear) = self.rmap.page(item);
        Some((vm, self.members.get(&vm)?.extents.at(linear)?))
    }

    /// Whether all pages of an extent that share their slots are alone with them, and can be made private.
    /// O(1): [some pages](LONGEST_PAGES), which are counted.
    fn is_alone(&self, vm: VmId, extent: Extent, looked_pages: &mut u32) -> bool {
        if extent.page_count > LONGEST_PAGES {
            return false;
        }
        *looked_pages += extent.page_count;
        let items = self.items(vm, extent.range().pages()).into_iter().flatten().flatten();
        items.into_iter().all(|item| self.may_be_private(item))
    }

    /// Whether an item shares its slot with no other, and can be made private without undoing a merge or a move.
    fn may_be_private(&self, item: ItemId) -> bool {
        let RmapItem::Stable(link) = self.rmap.item(item) else { return true };
        // Others may be about to come, it is to go elsewhere, or cannot be made private.
        let id = link.node;
        self.stable.node(id).sharers == 1 && self.is_movable(id)
    }
}
