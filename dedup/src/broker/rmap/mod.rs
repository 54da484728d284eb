//! Rmap items: the state of every page of every VM, in 12 bytes each (KSM: 64).
//!
//! An item's id leads to its VM and linear index without a search, and back, because items lie in
//! chunks that belong to one VM each, in linear order. The linear index is thus fixed when the VM
//! is registered and is never derived from an address.

mod age;
pub(super) mod breaks;
mod check;
mod packed;
mod smart_scan;
mod walk;

pub(super) use age::Age;

use std::ops::Range;

use packed::PackedItem;

use super::ids::{ItemId, NodeId};
use crate::fingerprint::Fingerprint;
use crate::{LinearIndex, VmId};

/// Items in a chunk: 48 KiB.
pub(super) const CHUNK_ITEMS: usize = 4096;

/// Where a page stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RmapItem {
    /// In no tree: changing, zero, not there, or not offered yet.
    Loose(Age),
    /// As loose, and what has this key is known to differ from it, or the key is contested.
    Collided(Fingerprint, Age),
    /// On the unstable tree: unchanged since the last pass, and without a twin.
    Waiting(Fingerprint, Age),
    /// To share a stable node, if it can.
    Proposed {
        /// The node, and the neighbours on its list.
        link: Link,
        /// Which directive its agent was sent for that.
        role: Role,
    },
    /// Mapped to a stable node's slot.
    Stable(Link),
}

/// Which directive an agent was sent for a page that is to share a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// None yet: to its agent, it is like a page that waits on the unstable tree.
    Undirected,
    /// None yet, and it came to the node when its slot was filled already: who filled it has pledged no mappings for it.
    UndirectedUnpledged,
    /// To hand over the bytes for the node's slot, and then to map the page there.
    Creating,
    /// To map the page to the node's slot.
    Joining,
}

impl Role {
    /// Whether it is none yet.
    pub(super) fn is_undirected(self) -> bool {
        matches!(self, Self::Undirected | Self::UndirectedUnpledged)
    }
}

/// An item's place on a stable node's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) node: NodeId,
    pub(super) next: Option<ItemId>,
    pub(super) prev: Option<ItemId>,
}

impl RmapItem {
    /// Its place on a node's list, if it is on one.
    pub(super) fn link(&self) -> Option<&Link> {
        match self {
            Self::Proposed { link, .. } | Self::Stable(link) => Some(link),
            Self::Loose(_) | Self::Collided(..) | Self::Waiting(..) => None,
        }
    }

    /// The key under which it has collided, if it has.
    pub(super) fn collided_key(&self) -> Option<Fingerprint> {
        match self {
            Self::Collided(key, _) => Some(*key),
            _ => None,
        }
    }

    /// The same state with another link, for an item that is on a node's list.
    pub(super) fn with_link(self, link: Link) -> Self {
        match self {
            Self::Proposed { role, .. } => Self::Proposed { link, role },
            Self::Stable(_) => Self::Stable(link),
            Self::Loose(_) | Self::Collided(..) | Self::Waiting(..) => self,
        }
    }
}

/// The items of one VM.
#[derive(Debug)]
pub(super) struct ItemRange {
    chunks: Vec<u32>,
    page_count: u32,
}

impl ItemRange {
    pub(super) fn page_count(&self) -> u32 {
        self.page_count
    }

    /// Bytes on the heap: the numbers of its chunks.
    pub(super) fn heap_bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<u32>()
    }

    /// The item of a page; `None` when the VM has no such page.
    pub(super) fn item(&self, linear: LinearIndex) -> Option<ItemId> {
        if linear.0 >= self.page_count {
            return None;
        }
        let chunk = self.chunks[linear.0 as usize / CHUNK_ITEMS] as usize;
        ItemId::from_index(chunk * CHUNK_ITEMS + linear.0 as usize % CHUNK_ITEMS)
    }
}

#[derive(Debug)]
struct Chunk {
    vm: VmId,
    first: LinearIndex,
    /// Made when the first of them is no longer loose and new.
    items: Option<Box<[PackedItem]>>,
    len: usize,
}

/// The arena of all items.
#[derive(Debug, Default)]
pub(super) struct Rmap {
    chunks: Vec<Option<Chunk>>,
    free: Vec<u32>,
}

impl Rmap {
    /// The most items there can be.
    pub(super) const LIMIT: u64 = (u32::MAX as u64 / CHUNK_ITEMS as u64) * CHUNK_ITEMS as u64;

    /// What an item takes.
    pub(super) const ITEM_BYTES: usize = size_of::<PackedItem>();

    /// How many of a VM's items take memory. O(pages / 4096).
    pub(super) fn count_made(&self, range: &ItemRange) -> u64 {
        let made = range.chunks.iter().filter_map(|&number| {
            let chunk = self.chunks[number as usize].as_ref()?;
            chunk.items.as_ref().map(|items| items.len() as u64)
        });
        made.sum()
    }

    /// The next pages of a VM from page `from` on whose items take memory. O(pages passed over / 4096).
    pub(super) fn next_made(&self, range: &ItemRange, from: u32) -> Option<Range<u32>> {
        let chunk_pages = u32::try_from(CHUNK_ITEMS).ok()?;
        let made = |&number: &u32| {
            let chunk = self.chunks[number as usize].as_ref()?;
            chunk.items.as_ref().map(|items| (chunk.first.0, items.len()))
        };
        let mut later = range.chunks.iter().skip((from / chunk_pages) as usize);
        let (first, len) = later.find_map(made)?;
        Some(first.max(from)..first + u32::try_from(len).ok()?).filter(|pages| !pages.is_empty())
    }

    /// Gives up the memory of items that are in no tree, where all of a chunk are; their ages are
    /// forgotten. Of all chunks that have items of `pages` only; returns how many items of theirs took memory,
    /// which is what it costs.
    pub(super) fn trim(&mut self, range: &ItemRange, pages: &Range<u32>) -> usize {
        let mut items = 0;
        let end = (pages.end as usize / CHUNK_ITEMS).min(range.chunks.len());
        let start = (pages.start as usize).div_ceil(CHUNK_ITEMS).min(end);
        for &number in &range.chunks[start..end] {
            let Some(chunk) = &mut self.chunks[number as usize] else { continue };
            items += chunk.items.as_ref().map_or(0, |items| items.len());
            let is_loose = |items: &[PackedItem]| {
                let is_loose = |item: &PackedItem| {
                    matches!(item.unpack(), RmapItem::Loose(_) | RmapItem::Collided(..))
                };
                items.iter().all(is_loose)
            };
            chunk.items = chunk.items.take().filter(|items| !is_loose(items));
        }
        items
    }

    /// Makes loose items for `page_count` pages, or `None` when ids run out. O(pages).
    pub(super) fn register(&mut self, vm: VmId, page_count: u32) -> Option<ItemRange> {
        let needed = (page_count as usize).div_ceil(CHUNK_ITEMS);
        let total = self.chunks.len() + needed.saturating_sub(self.free.len());
        if (total * CHUNK_ITEMS) as u64 > Self::LIMIT {
            return None;
        }
        let mut chunks = Vec::with_capacity(needed);
        for position in 0..needed {
            let first = position * CHUNK_ITEMS;
            let len = CHUNK_ITEMS.min(page_count as usize - first);
            let chunk =
                Chunk { vm, first: LinearIndex(u32::try_from(first).ok()?), items: None, len };
            let number = if let Some(number) = self.free.pop() {
                number
            } else {
                self.chunks.push(None);
                u32::try_from(self.chunks.len() - 1).ok()?
            };
            self.chunks[number as usize] = Some(chunk);
            chunks.push(number);
        }
        Some(ItemRange { chunks, page_count })
    }

    /// Has the items of a VM be another's. O(pages / 4096).
    pub(super) fn rename(&mut self, range: &ItemRange, to: VmId) {
        for &number in &range.chunks {
            if let Some(chunk) = &mut self.chunks[number as usize] {
                chunk.vm = to;
            }
        }
    }

    /// Frees the items of a VM, which must all be loose. O(chunks).
    pub(super) fn unregister(&mut self, range: &ItemRange) {
        for &number in &range.chunks {
            self.chunks[number as usize] = None;
            self.free.push(number);
        }
        self.shorten();
    }

    /// Takes the last places for chunks off while they are free. O(chunks).
    fn shorten(&mut self) {
        let end = self.chunks.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        if end == self.chunks.len() {
            return;
        }
        self.chunks.truncate(end);
        self.chunks.shrink_to(end);
        self.free.retain(|&number| (number as usize) < end);
        self.free.shrink_to(self.free.len());
    }

    /// Where a page stands; its VM must be registered.
    pub(super) fn item(&self, id: ItemId) -> RmapItem {
        let chunk = self.chunk(id);
        chunk.items.as_ref().map_or(RmapItem::Loose(Age::NEW), |items| items[position(id)].unpack())
    }

    pub(super) fn set(&mut self, id: ItemId, item: RmapItem) {
        let Some(chunk) = &mut self.chunks[id.index() / CHUNK_ITEMS] else {
            unreachable!("item {id:?} of a VM that is gone")
        };
        let len = chunk.len;
        let items = chunk.items.get_or_insert_with(|| vec![PackedItem::NEW; len].into());
        items[position(id)] = PackedItem::pack(item);
    }

    /// The page that an item stands for.
    pub(super) fn page(&self, id: ItemId) -> (VmId, LinearIndex) {
        let chunk = self.chunk(id);
        #[expect(clippy::cast_possible_truncation, reason = "below CHUNK_ITEMS")]
        let offset = position(id) as u32;
        (chunk.vm, chunk.first.offset(offset))
    }

    /// The items on a stable node's list from `first` on.
    pub(super) fn list_from(
        &self,
        first: Option<ItemId>,
    ) -> impl Iterator<Item = ItemId> + use<'_> {
        std::iter::successors(first, |&item| self.item(item).link()?.next)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let made = |chunk: &Chunk| chunk.items.as_ref().map_or(0, |items| items.len());
        let items: usize = self.chunks.iter().flatten().map(made).sum();
        items * Self::ITEM_BYTES
            + self.chunks.capacity() * size_of::<Option<Chunk>>()
            + self.free.capacity() * size_of::<u32>()
    }

    fn chunk(&self, id: ItemId) -> &Chunk {
        match &self.chunks[id.index() / CHUNK_ITEMS] {
            Some(chunk) => chunk,
            None => unreachable!("item {id:?} of a VM that is gone"),
        }
    }
}

/// An item's place in its chunk.
fn position(id: ItemId) -> usize {
    id.index() % CHUNK_ITEMS
}
