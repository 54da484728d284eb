//! Pages that are left alone with their slots, made private when mappings are short.
//!
//! A page whose partners were written, or have gone, keeps its slot, as KSM's does: a new partner finds it there. It
//! saves nothing, and keeps two mappings. So where others are put off for want of mappings, it is made private.

use crate::broker::LocalBroker;
use crate::protocol::Batch;

/// Nodes that a call looks at, at most.
const LOOKED_NODES: usize = 1 << 16;

/// Pages that are to be made private because of a call, at most.
const LEFT_PAGES: usize = 1 << 13;

impl LocalBroker {
    /// Has pages that share their slots with nobody any more be made private, going on where the last call ended;
    /// returns whether there may be others. [`directives`](crate::protocol::Broker::directives) have their agents do
    /// it. O(1): some ten thousand nodes.
    pub fn unshare_left_alone(&mut self) -> Batch {
        if self.stable.left_alone_count == 0 {
            return Batch::Last;
        }
        let from = std::mem::take(&mut self.left_alone_from);
        let end = self.stable.end();
        let looked = from.min(end)..end.min(from + LOOKED_NODES);
        let found: Vec<_> =
            self.stable.left_alone_within(looked.clone()).take(LEFT_PAGES).collect();
        let next = match found.get(LEFT_PAGES - 1) {
            Some(last) => last.index() + 1,
            None => looked.end,
        };
        for id in found {
            // Others are about to come, it is to go elsewhere, or cannot be made private.
            if self.is_movable(id) && !self.is_target(id) {
                self.stable.unpair(id);
                self.settle_node(id);
            }
        }
        if next == end {
            return Batch::Last;
        }
        self.left_alone_from = next;
        Batch::More
    }
}
