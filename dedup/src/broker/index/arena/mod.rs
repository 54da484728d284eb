//! Entries by index, in chunks whose memory is given back.

mod check;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};

/// Entries of a chunk.
const CHUNK: usize = 1024;

/// Entries for which a chunk has room at first; it doubles as it fills.
const FIRST_ENTRIES: usize = 16;

/// Chunks by which the directory may be larger than it needs to be.
const SPARE_CHUNKS: usize = 16;

/// A set of entries with indexes that stay theirs.
///
/// A new entry takes the lowest free index of the lowest chunk that has one, so that the others run empty
/// as entries go. A chunk without entries takes no memory but its place in the directory, and the
/// directory ends with the last chunk that has any.
#[derive(Debug)]
pub(in crate::broker::index) struct Arena<T> {
    chunks: Vec<Vec<T>>,
    /// Which indexes are in use, chunk by chunk: apart, so that a lookup touches less memory.
    used: Vec<Used>,
    /// Chunks with free indexes.
    open: BTreeSet<usize>,
    len: usize,
}

/// Which positions of a chunk are in use.
#[derive(Debug, Clone, Default)]
struct Used {
    words: [u64; CHUNK / 64],
    count: usize,
}

impl Used {
    fn first_free(&self) -> Option<usize> {
        let word = self.words.iter().position(|&word| word != u64::MAX)?;
        Some(word * 64 + self.words[word].trailing_ones() as usize)
    }

    fn highest(&self) -> Option<usize> {
        let word = self.words.iter().rposition(|&word| word != 0)?;
        Some(word * 64 + self.words[word].ilog2() as usize)
    }

    fn contains(&self, position: usize) -> bool {
        self.words[position / 64] >> (position % 64) & 1 == 1
    }

    fn flip(&mut self, position: usize) {
        self.words[position / 64] ^= 1 << (position % 64);
    }
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), used: Vec::new(), open: BTreeSet::new(), len: 0 }
    }
}

impl<T> Arena<T> {
    /// How many entries there are.
    pub(in crate::broker::index) fn len(&self) -> usize {
        self.len
    }

    /// One above the highest index that an entry can have without a new chunk.
    pub(in crate::broker::index) fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// One above the highest index in use. O(1).
    pub(in crate::broker::index) fn end(&self) -> usize {
        let highest = self.used.last().and_then(Used::highest).map_or(0, |position| position + 1);
        (self.capacity() + highest).saturating_sub(CHUNK)
    }

    /// The index that the next entry will have. O(1) but for the set of chunks with free ones.
    pub(in crate::broker::index) fn next_index(&self) -> usize {
        let place = |&chunk: &usize| Some(chunk * CHUNK + self.used[chunk].first_free()?);
        self.open.first().and_then(place).unwrap_or_else(|| self.capacity())
    }

    /// Puts an entry in and returns its index, which is [`next_index`](Self::next_index).
    pub(in crate::broker::index) fn insert(&mut self, entry: T) -> usize {
        let index = self.next_index();
        let (chunk, position) = (index / CHUNK, index % CHUNK);
        if chunk == self.chunks.len() {
            self.chunks.push(Vec::new());
            self.used.push(Used::default());
            self.open.insert(chunk);
        }
        let entries = &mut self.chunks[chunk];
        if position < entries.len() {
            entries[position] = entry;
        } else {
            // What is free below an index in use has been in use, so this is the next position.
            if entries.len() == entries.capacity() {
                let room = CHUNK - entries.len();
                entries.reserve_exact(entries.len().max(FIRST_ENTRIES).min(room));
            }
            entries.push(entry);
        }
        let used = &mut self.used[chunk];
        used.flip(position);
        used.count += 1;
        if used.count == CHUNK {
            self.open.remove(&chunk);
        }
        self.len += 1;
        index
    }

    /// Frees the index of an entry. O(chunks that the directory loses), which were without entries.
    pub(in crate::broker::index) fn remove(&mut self, index: usize) {
        let (chunk, position) = (index / CHUNK, index % CHUNK);
        let used = &mut self.used[chunk];
        debug_assert!(used.contains(position), "{index} is free");
        if used.count == CHUNK {
            self.open.insert(chunk);
        }
        used.flip(position);
        used.count -= 1;
        self.len -= 1;
        if used.count == 0 {
            self.chunks[chunk] = Vec::new();
            self.shorten();
        }
    }

    /// Takes the last chunks off the directory while they have no entries.
    fn shorten(&mut self) {
        while self.used.last().is_some_and(|used| used.count == 0) {
            self.used.pop();
            self.chunks.pop();
            self.open.remove(&self.chunks.len());
        }
        let enough = 2 * self.chunks.len() + SPARE_CHUNKS;
        if self.chunks.capacity() > enough {
            self.chunks.shrink_to(self.chunks.len());
        }
        if self.used.capacity() > enough {
            self.used.shrink_to(self.used.len());
        }
    }

    /// What is at an index that is in use, or what was if that has been kept.
    pub(in crate::broker::index) fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    /// The bytes of entries and directory on the heap, not of what entries point to. O(n / 1024).
    pub(in crate::broker::index) fn heap_bytes(&self) -> usize {
        let entries: usize = self.chunks.iter().map(Vec::capacity).sum();
        entries * size_of::<T>()
            + self.chunks.capacity() * size_of::<Vec<T>>()
            + self.used.capacity() * size_of::<Used>()
            + self.open.len() * size_of::<usize>() * 3 / 2
    }
}

impl<T> Index<usize> for Arena<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        &self.chunks[index / CHUNK][index % CHUNK]
    }
}

impl<T> IndexMut<usize> for Arena<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }
}
