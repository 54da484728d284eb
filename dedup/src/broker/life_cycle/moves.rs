//! What moves of sharers do to the nodes that they are between, and how they end.

use crate::broker::LocalBroker;
use crate::broker::ids::NodeId;

/// A move that is under way.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) struct Move {
    /// The node that the sharers are moved to.
    pub(in crate::broker) target: NodeId,
    /// Whether its sharers have been enqueued by [`enqueue_moves`](LocalBroker::enqueue_moves).
    pub(in crate::broker) was_enqueued: bool,
}

impl LocalBroker {
    /// Whether sharers are being moved to a node.
    pub(in crate::broker) fn is_target(&self, id: NodeId) -> bool {
        let node = self.stable.node(id);
        node.closed && !node.lost && !self.moves.contains_key(&id)
    }

    /// Ends the move from a node that was removed, if there is one; returns its target, which takes items again, and
    /// may be of no use now.
    pub(super) fn finish_move(&mut self, from: NodeId) -> Option<NodeId> {
        let target = self.moves.remove(&from)?.target;
        self.stable.set_closed(target, false);
        if self.stable.has_room(target) {
            self.propose_waiting(target);
        }
        Some(target)
    }

    /// Ends a move as it stands: both nodes take items again, but for a source whose slot is lost. A target without
    /// items is removed. O(log VMs + log moves).
    pub(in crate::broker) fn cancel_move(&mut self, from: NodeId) {
        let Some(Move { target, .. }) = self.moves.remove(&from) else { return };
        self.stable.set_closed(from, self.stable.node(from).lost);
        self.stable.set_closed(target, false);
        let mut left = vec![from];
        if self.stable.node(target).load() == 0 {
            self.dissolve_or_unshare_node(target);
        } else {
            left.push(target);
        }
        for &id in &left {
            if self.stable.has_room(id) {
                self.propose_waiting(id);
            }
        }
        for id in left {
            self.dissolve_or_unshare_node(id);
        }
    }
}
