//! Pruning chains: dups that have become small are joined.
//!
//! A dup goes with its last sharer, so there are none without use, and a chain of one collapses at
//! once. What is left to do from time to time is what KSM does not do: when the sharers of two dups
//! would fit in one, they are moved together, and a page is saved. Each time pairs are made of as many
//! of a chain's dups as fit, which halves their number.

use super::LocalBroker;
use super::ids::{ChainId, NodeId};

impl LocalBroker {
    /// Looks through `limit` chains at most, from where the last call ended, and begins to join dups
    /// that fit together; says how many are to go. [`directives`](crate::protocol::Broker::directives)
    /// have the agents of their sharers do it. O(dups looked at, and their sharers if they are to
    /// move).
    pub fn prune(&mut self, limit: usize) -> usize {
        let mut joined = 0;
        for _ in 0..limit.min(self.stable.chains.end()) {
            self.pruned = (self.pruned + 1) % self.stable.chains.end();
            if let Some(chain) = ChainId::from_index(self.pruned) {
                joined += self.join_dups(chain);
            }
        }
        joined
    }

    /// Begins to move the sharers of a chain's smallest dups to the largest that have room for all of
    /// them, in pairs; says how many pairs there are. O(n log n) in the chain's dups.
    fn join_dups(&mut self, chain: ChainId) -> usize {
        let dups = self.stable.chains.dups(chain).iter().copied();
        let mut dups: Vec<NodeId> = dups.filter(|&dup| self.is_movable(dup)).collect();
        dups.sort_unstable_by_key(|&dup| self.stable.node(dup).load());
        let (mut joined, mut candidates) = (0, dups.as_slice());
        while let [smallest, between @ .., largest] = candidates {
            if self.fit_together(*smallest, *largest) {
                self.begin(*smallest, *largest);
                self.direct_sharers(*smallest);
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
