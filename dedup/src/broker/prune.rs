//! Pruning chains: dups that have become small are joined.
//!
//! A dup goes with its last sharer, so there are none without use, and a chain of one collapses at
//! once. What is left to do from time to time is what KSM does not do: when the sharers of two dups
//! would fit in one, they are moved together, and a page is saved.

use super::LocalBroker;
use super::ids::{ChainId, NodeId};

impl LocalBroker {
    /// Looks through `limit` chains at most, from where the last call ended, and begins to join dups
    /// that fit together; says how many are to go. [`directives`](crate::protocol::Broker::directives)
    /// have the agents of their sharers do it. O(dups looked at, and their sharers if they are to
    /// move).
    pub fn prune(&mut self, limit: usize) -> usize {
        let mut joined = 0;
        for _ in 0..limit.min(self.stable.chains.capacity()) {
            self.pruned = (self.pruned + 1) % self.stable.chains.capacity();
            if let Some(chain) = ChainId::from_index(self.pruned) {
                joined += usize::from(self.join_dups(chain));
            }
        }
        joined
    }

    /// Begins to move the sharers of a chain's smallest dup to the largest that has room for all of
    /// them; says whether there is one.
    fn join_dups(&mut self, chain: ChainId) -> bool {
        let dups = self.stable.chains.dups(chain).iter().copied();
        let mut dups: Vec<NodeId> = dups.filter(|&dup| self.is_movable(dup)).collect();
        dups.sort_unstable_by_key(|&dup| self.stable.node(dup).load());
        let Some((&smallest, others)) = dups.split_first() else { return false };
        let moving = self.stable.node(smallest);
        let room = self.stable.max_page_sharing() - moving.load();
        let fits = |dup: &&NodeId| {
            let dup = self.stable.node(**dup);
            dup.load() <= room && dup.identity == moving.identity
        };
        let Some(&target) = others.iter().rev().find(fits) else { return false };
        self.begin(smallest, target);
        self.direct_sharers(smallest);
        true
    }
}
