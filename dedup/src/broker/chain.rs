//! Chains: the stable nodes of one content, once it has more sharers than one node may have.
//!
//! A content that more than `max_page_sharing` pages share is kept in several slots, each on a node
//! of its own, a *dup*, so that no walk from a slot to its mappings takes longer than that. The
//! dups of one content hang off a chain, which stands in the tree in the place of a node.

use super::ids::{ChainId, NodeId};

/// What stands in the stable tree for one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// A regular node.
    Node(NodeId),
    /// A chain of two dups or more.
    Chain(ChainId),
}

/// The bit of an entry's number that says that it is a chain.
const CHAIN: u32 = 1 << (u32::BITS - 1);
const _: () = assert!(NodeId::SPARE_BITS > 0 && ChainId::SPARE_BITS > 0);

impl Entry {
    /// The entry as the tree keeps it.
    pub(super) fn to_number(self) -> u32 {
        match self {
            Self::Node(id) => id.number(),
            Self::Chain(id) => id.number() | CHAIN,
        }
    }

    /// The entry that [`to_number`](Self::to_number) gave this number.
    pub(super) fn from_number(number: u32) -> Self {
        let chain = ChainId::from_number(number & !CHAIN).filter(|_| number & CHAIN != 0);
        match (chain, NodeId::from_number(number)) {
            (Some(chain), _) => Self::Chain(chain),
            (None, Some(node)) => Self::Node(node),
            (None, None) => unreachable!("0 is no entry's number"),
        }
    }
}

/// All chains, and the exact number of their dups.
#[derive(Debug, Default)]
pub(super) struct Chains {
    /// Each chain's dups. The first one has room if any has.
    dups: Vec<Vec<NodeId>>,
    free: Vec<ChainId>,
    /// Nodes that hang off chains: KSM's `stable_node_dups`.
    pub(super) count_dups: u64,
}

impl Chains {
    /// How many chains there are: KSM's `stable_node_chains`.
    pub(super) fn len(&self) -> u64 {
        (self.dups.len() - self.free.len()) as u64
    }

    /// One above the highest index of any chain so far.
    pub(super) fn capacity(&self) -> usize {
        self.dups.len()
    }

    /// Makes a chain without dups; `None` when ids run out.
    pub(super) fn insert(&mut self) -> Option<ChainId> {
        if let Some(id) = self.free.pop() {
            return Some(id);
        }
        let id = ChainId::from_index(self.dups.len())?;
        self.dups.push(Vec::new());
        Some(id)
    }

    /// Removes a chain without dups.
    pub(super) fn remove(&mut self, id: ChainId) {
        let dups = std::mem::take(&mut self.dups[id.index()]);
        debug_assert!(dups.is_empty(), "dups on a chain that goes");
        self.free.push(id);
    }

    pub(super) fn dups(&self, id: ChainId) -> &[NodeId] {
        &self.dups[id.index()]
    }

    /// Adds a dup behind the others and says where.
    pub(super) fn push(&mut self, id: ChainId, dup: NodeId) -> usize {
        self.count_dups += 1;
        self.dups[id.index()].push(dup);
        self.dups[id.index()].len() - 1
    }

    /// Takes the dup at `place` out and says which one is there now.
    pub(super) fn take(&mut self, id: ChainId, place: usize) -> Option<NodeId> {
        self.count_dups -= 1;
        self.dups[id.index()].swap_remove(place);
        self.dups[id.index()].get(place).copied()
    }

    /// Exchanges the dups at two places.
    pub(super) fn swap(&mut self, id: ChainId, one: usize, other: usize) {
        self.dups[id.index()].swap(one, other);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let dups: usize = self.dups.iter().map(|dups| dups.capacity() * size_of::<NodeId>()).sum();
        dups + self.dups.capacity() * size_of::<Vec<NodeId>>()
            + self.free.capacity() * size_of::<ChainId>()
    }
}
