//! Joining dups of a chain that have become small.
//!
//! A dup is removed with its last sharer, and a chain of one collapses at once, so there is nothing stale to prune as
//! KSM does. KSM does not do this: when the sharers of two dups would fit in one, they are moved together, and a page
//! is saved. Each time pairs are made of as many of a chain's dups as fit together, which halves the number of those.

use crate::broker::LocalBroker;
use crate::broker::ids::{ChainId, NodeId};

/// Dups that a call looks at, at most; a chain counts as one at least.
const LOOKED_DUPS: usize = 1 << 13;

/// Sharers that are to move because of a call, but for those of its last pair.
const MOVED_SHARERS: u32 = 1 << 13;

/// Where the next call goes on.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::broker) struct JoinCursor {
    chain: usize,
    /// Its place among those of its dups that have room. Dups that are joined are not among these any more, and others
    /// take their places, so the next call may pass over some; a later round finds them.
    dup: usize,
}

impl LocalBroker {
    /// Looks through chains from where the last call ended, and begins to join dups that fit together;
    /// returns how many are to be removed. [`directives`](crate::protocol::Broker::directives) have the agents of
    /// their sharers do it. O(1): some thousand dups, and some thousand sharers that are to move.
    pub fn join_dups(&mut self) -> usize {
        let (mut joined, mut dups, mut sharers) = (0, LOOKED_DUPS, MOVED_SHARERS);
        for _ in 0..self.stable.chains.end() {
            if dups == 0 || sharers == 0 {
                break;
            }
            let JoinCursor { chain, dup } = self.join_cursor;
            let with_room =
                ChainId::from_index(chain).map_or(&[][..], |id| self.stable.chains.with_room(id));
            let end = with_room.len().min(dup + dups);
            let some = with_room.get(dup..end).unwrap_or_default().to_vec();
            let is_last = end == with_room.len();
            dups = dups.saturating_sub(some.len().max(1));
            joined += self.join_some(some, &mut sharers);
            self.join_cursor = if !is_last {
                JoinCursor { chain, dup: end }
            } else if chain + 1 < self.stable.chains.end() {
                JoinCursor { chain: chain + 1, dup: 0 }
            } else {
                JoinCursor::default()
            };
        }
        joined
    }

    /// Begins to move the sharers of the smallest of a chain's dups to the largest that have room for all
    /// of them, in pairs, and as long as `sharers` are left to be moved; returns how many pairs there are.
    /// O(n log n).
    fn join_some(&mut self, mut dups: Vec<NodeId>, sharers: &mut u32) -> usize {
        dups.retain(|&dup| self.is_movable(dup));
        dups.sort_unstable_by_key(|&dup| self.stable.node(dup).load());
        let (mut joined, mut candidates) = (0, dups.as_slice());
        while let [smallest, between @ .., largest] = candidates
            && *sharers > 0
        {
            if self.fit_together(*smallest, *largest) {
                *sharers = sharers.saturating_sub(self.stable.node(*smallest).load());
                self.start_move_between(*smallest, *largest);
                self.enqueue_sharers(*smallest);
                joined += 1;
                candidates = between;
            } else {
                // Nor would any other fit with that one.
                candidates = &candidates[..candidates.len() - 1];
            }
        }
        joined
    }

    /// Whether the sharers of two dups would have room on one.
    fn fit_together(&self, one: NodeId, other: NodeId) -> bool {
        let (one, other) = (self.stable.node(one), self.stable.node(other));
        one.load() + other.load() <= self.stable.max_page_sharing()
            && one.identity == other.identity
    }
}
