//! Chains: the stable nodes of one content that has two or more.
//!
//! A content that more than `max_page_sharing` pages share is kept in several slots, each on a node
//! of its own, a *dup*, so that no walk from a slot to its sharers takes longer than that. Offers make another dup
//! only when two pages find none with room. A move to a new slot makes one, too, whatever room there is: its source and
//! its target are dups until the last sharer has moved. The dups of one content hang off a chain, which stands in the
//! tree in the place of a node.

use crate::broker::ids::check_numbers_of;
use crate::broker::ids::{ChainId, NodeId};
use crate::broker::index::arena::Arena;

/// What stands in the stable tree for one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Entry {
    /// A regular node.
    Node(NodeId),
    /// A chain of two dups or more.
    Chain(ChainId),
}

/// The bit of a packed entry that is set for a chain.
const CHAIN: u32 = 1 << (u32::BITS - 1);
const _: () = assert!(NodeId::SPARE_BITS > 0 && ChainId::SPARE_BITS > 0);

impl Entry {
    /// The entry as the tree keeps it.
    pub(in crate::broker) fn to_packed(self) -> u32 {
        match self {
            Self::Node(id) => id.to_packed(),
            Self::Chain(id) => id.to_packed() | CHAIN,
        }
    }

    /// The entry that [`to_packed`](Self::to_packed) gave.
    pub(in crate::broker) fn from_packed(packed: u32) -> Self {
        let chain = ChainId::from_packed(packed & !CHAIN).filter(|_| packed & CHAIN != 0);
        match (chain, NodeId::from_packed(packed)) {
            (Some(chain), _) => Self::Chain(chain),
            (None, Some(node)) => Self::Node(node),
            (None, None) => unreachable!("no entry is packed as 0"),
        }
    }
}

/// The dups of one content.
#[derive(Debug, Default)]
struct Chain {
    /// Those that have room, then those that have none.
    dups: Vec<NodeId>,
    /// How many have room.
    with_room_count: usize,
}

/// All chains, and the exact number of their dups.
#[derive(Debug, Default)]
pub(in crate::broker) struct Chains {
    all: Arena<Chain>,
    /// Nodes that hang off chains: KSM's `stable_node_dups`.
    pub(in crate::broker) dup_count: u64,
}

impl Chains {
    /// How many chains there are: KSM's `stable_node_chains`.
    pub(in crate::broker) fn len(&self) -> u64 {
        self.all.len() as u64
    }

    /// One above the highest index of any chain.
    pub(in crate::broker) fn end(&self) -> usize {
        self.all.end()
    }

    /// Whether ids have run out.
    pub(in crate::broker) fn has_no_ids(&self) -> bool {
        ChainId::from_index(self.all.next_index()).is_none()
    }

    /// Makes a chain without dups; `None` when ids run out.
    pub(in crate::broker) fn insert(&mut self) -> Option<ChainId> {
        let id = ChainId::from_index(self.all.next_index())?;
        self.all.insert(Chain::default());
        Some(id)
    }

    /// Removes a chain without dups.
    pub(in crate::broker) fn remove(&mut self, id: ChainId) {
        let chain = std::mem::take(&mut self.all[id.index()]);
        debug_assert!(chain.dups.is_empty(), "dups on a chain that goes");
        self.all.remove(id.index());
    }

    /// The dups of a chain; none of one that is free.
    pub(in crate::broker) fn dups(&self, id: ChainId) -> &[NodeId] {
        self.all.get(id.index()).map_or(&[], |chain| &chain.dups)
    }

    /// Those of a chain's dups that have room; none of a chain that is free.
    pub(in crate::broker) fn with_room(&self, id: ChainId) -> &[NodeId] {
        self.all.get(id.index()).map_or(&[], |chain| &chain.dups[..chain.with_room_count])
    }

    /// How many of a chain's dups, the first ones, have room.
    pub(in crate::broker) fn with_room_count(&self, id: ChainId) -> usize {
        self.all[id.index()].with_room_count
    }

    /// Notes how many of a chain's dups, the first ones, have room.
    pub(in crate::broker) fn set_with_room_count(&mut self, id: ChainId, with_room_count: usize) {
        self.all[id.index()].with_room_count = with_room_count;
    }

    /// Adds a dup behind the others, as one without room, and returns its index.
    pub(in crate::broker) fn push(&mut self, id: ChainId, dup: NodeId) -> usize {
        self.dup_count += 1;
        let dups = &mut self.all[id.index()].dups;
        dups.push(dup);
        dups.len() - 1
    }

    /// Takes the dup at `dup_index` out, puts the last one there, and returns that, if it was another. It must be one
    /// without room, as those with room would not be the first ones otherwise, unless the chain is removed next.
    pub(in crate::broker) fn take(&mut self, id: ChainId, dup_index: usize) -> Option<NodeId> {
        self.dup_count -= 1;
        let dups = &mut self.all[id.index()].dups;
        dups.swap_remove(dup_index);
        dups.get(dup_index).copied()
    }

    /// Exchanges the dups at two indexes.
    pub(in crate::broker) fn swap(&mut self, id: ChainId, one: usize, other: usize) {
        self.all[id.index()].dups.swap(one, other);
    }

    /// Verifies that every chain is one of those that are in use, or is free, and has no dups then.
    /// O(chains).
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(in crate::broker) fn check_free(&self, used: &[ChainId]) -> Result<(), String> {
        let used = used.iter().map(|id| id.index());
        check_numbers_of("chain", self.all.capacity(), used, self.all.free())?;
        self.all.check()?;
        let has_dups = |&index: &usize| self.all.get(index).is_some_and(|it| !it.dups.is_empty());
        match self.all.free().find(has_dups) {
            Some(index) => Err(format!("chain {index} is free, and has dups")),
            None => Ok(()),
        }
    }

    pub(in crate::broker) fn heap_bytes(&self) -> usize {
        let chains = (0..self.all.capacity()).filter_map(|index| self.all.get(index));
        let dups: usize = chains.map(|chain| chain.dups.capacity() * size_of::<NodeId>()).sum();
        dups + self.all.heap_bytes()
    }
}
