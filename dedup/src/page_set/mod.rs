//! A fixed-size set of linear indexes: one bit each, and none where all or no pages are in it.
#![forbid(unsafe_code)]

mod chunk;
mod combine;
mod runs;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::LinearIndex;
use crate::types::count;
use chunk::{BITS, CHUNK, CHUNK_WORDS, Chunk, for_masks, pieces};

/// A set of pages of one VM, whose number of pages is fixed when it is made.
///
/// It takes memory only for stretches of which some pages are in the set and others are not.
#[derive(Debug, Clone)]
pub struct PageSet {
    chunks: Vec<Chunk>,
    /// Pages that the set is over.
    len: usize,
}

impl PageSet {
    /// The empty set over a VM's `page_count` pages.
    pub fn new(page_count: u32) -> Self {
        let len = page_count as usize;
        Self { chunks: vec![Chunk::Empty; len.div_ceil(CHUNK)], len }
    }

    /// The set of all of a VM's `page_count` pages.
    pub fn full(page_count: u32) -> Self {
        let mut set = Self::new(page_count);
        set.insert_range(set.whole());
        set
    }

    /// How many pages the set is over, whether or not they are in it.
    pub fn page_count(&self) -> u32 {
        count(self.len)
    }

    /// All pages that the set is over.
    pub fn whole(&self) -> Range<LinearIndex> {
        LinearIndex(0)..self.end()
    }

    /// One above the last page that the set is over.
    pub fn end(&self) -> LinearIndex {
        LinearIndex(self.page_count())
    }

    /// Whether no page is in the set.
    pub fn is_empty(&self) -> bool {
        self.chunks.iter().all(Chunk::is_empty)
    }

    /// How many pages are in the set. O(pages / 64).
    pub fn count(&self) -> u32 {
        let members = |chunk: &Chunk| match chunk {
            Chunk::Empty => 0,
            Chunk::Full => CHUNK,
            Chunk::Words(words) => words.iter().map(|word| word.count_ones() as usize).sum(),
        };
        count(self.chunks.iter().map(members).sum())
    }

    /// How many pages of `range`, which must not reach beyond the end, are in the set. O(range / 64).
    pub(crate) fn count_within(&self, range: Range<LinearIndex>) -> u32 {
        let members = |(chunk, within): (usize, Range<usize>)| match &self.chunks[chunk] {
            Chunk::Empty => 0,
            Chunk::Full => within.len(),
            Chunk::Words(words) => {
                let mut count = 0;
                for_masks(within, |word, mask| count += (words[word] & mask).count_ones() as usize);
                count
            }
        };
        count(pieces(positions(&range)).map(members).sum())
    }

    /// Whether a page is in the set.
    #[inline]
    pub fn contains(&self, page: LinearIndex) -> bool {
        let index = position(page);
        let word = self.chunks[index / CHUNK].word(index % CHUNK / BITS);
        word & (1 << (index % BITS)) != 0
    }

    /// Puts a page in; returns whether it was new.
    ///
    /// # Panics
    ///
    /// When the set is not over such a page.
    #[inline]
    pub fn insert(&mut self, page: LinearIndex) -> bool {
        let index = position(page);
        assert!(index < self.len, "{index} is not below {}", self.len);
        let (position, bit) = (index % CHUNK / BITS, 1 << (index % BITS));
        let word = match &mut self.chunks[index / CHUNK] {
            Chunk::Full => return false,
            Chunk::Words(words) => &mut words[position],
            Chunk::Empty => &mut self.words_mut(index / CHUNK)[position],
        };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Takes a page out; returns whether it was in.
    #[inline]
    pub fn remove(&mut self, page: LinearIndex) -> bool {
        let index = position(page);
        let (position, bit) = (index % CHUNK / BITS, 1 << (index % BITS));
        let word = match &mut self.chunks[index / CHUNK] {
            Chunk::Empty => return false,
            Chunk::Words(words) => &mut words[position],
            Chunk::Full => &mut self.words_mut(index / CHUNK)[position],
        };
        let had = *word & bit != 0;
        *word &= !bit;
        had
    }

    /// Puts every page of `range` in.
    ///
    /// # Panics
    ///
    /// When the range reaches beyond the end.
    pub fn insert_range(&mut self, range: Range<LinearIndex>) {
        assert!(range.end <= self.end(), "{} is above {}", range.end, self.len);
        for (chunk, within) in pieces(positions(&range)) {
            if within.len() == CHUNK {
                self.chunks[chunk] = Chunk::Full;
            } else if !matches!(self.chunks[chunk], Chunk::Full) {
                let words = self.words_mut(chunk);
                for_masks(within, |word, mask| words[word] |= mask);
            }
        }
    }

    /// Takes every page of `range` out.
    ///
    /// # Panics
    ///
    /// When the range reaches beyond the end.
    pub fn remove_range(&mut self, range: Range<LinearIndex>) {
        assert!(range.end <= self.end(), "{} is above {}", range.end, self.len);
        for (chunk, within) in pieces(positions(&range)) {
            let is_last = self.is_at_end(chunk, within.end);
            if is_last && within.start == 0 {
                self.chunks[chunk] = Chunk::Empty;
            } else if !matches!(self.chunks[chunk], Chunk::Empty) {
                let words = self.words_mut(chunk);
                for_masks(within, |word, mask| words[word] &= !mask);
                if is_last {
                    self.chunks[chunk].shrink();
                }
            }
        }
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.chunks.fill(Chunk::Empty);
    }

    /// Clears the bits of the last word that stand for no page, which a source of changes may have
    /// set; returns whether it had.
    pub(crate) fn clear_beyond_end(&mut self) -> bool {
        let used = self.len % BITS;
        let Some(Chunk::Words(words)) = self.chunks.last_mut().filter(|_| used != 0) else {
            return false;
        };
        let Some(last) = words.last_mut() else { return false };
        let beyond = *last & (u64::MAX << used);
        *last &= !beyond;
        beyond != 0
    }

    /// Puts pages in by their bits, 64 to a word, the lowest page in the lowest bit, `first` in the
    /// lowest of the first word: as a source of changes with this layout has them (KVM's dirty
    /// log). Bits for pages that the set is not over must be clear. O(words).
    pub fn insert_words(&mut self, first: LinearIndex, words: &[u64]) {
        let first = position(first);
        let (start, shift) = (first / BITS, first % BITS);
        for (position, &word) in words.iter().enumerate().filter(|&(_, &word)| word != 0) {
            self.insert_word(start + position, word << shift);
            if shift != 0 {
                self.insert_word(start + position + 1, word >> (BITS - shift));
            }
        }
    }

    fn insert_word(&mut self, position: usize, word: u64) {
        if word == 0 || position >= self.len.div_ceil(BITS) {
            return;
        }
        let chunk = position / CHUNK_WORDS;
        if !matches!(self.chunks[chunk], Chunk::Full) {
            self.words_mut(chunk)[position % CHUNK_WORDS] |= word;
        }
    }

    /// Bytes the set takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let words = |chunk: &Chunk| match chunk {
            Chunk::Empty | Chunk::Full => 0,
            Chunk::Words(words) => size_of_val::<[u64]>(words),
        };
        self.chunks.capacity() * size_of::<Chunk>() + self.chunks.iter().map(words).sum::<usize>()
    }

    /// Words of a chunk: fewer for the last one.
    fn chunk_words(&self, chunk: usize) -> usize {
        CHUNK_WORDS.min(self.len.div_ceil(BITS) - chunk * CHUNK_WORDS)
    }

    fn words_mut(&mut self, chunk: usize) -> &mut [u64] {
        let len = self.chunk_words(chunk);
        self.chunks[chunk].words_mut(len)
    }

    /// Whether a position, relative to its chunk, is one above the chunk's last.
    fn is_at_end(&self, chunk: usize, end: usize) -> bool {
        end == CHUNK || chunk * CHUNK + end == self.len
    }
}

/// Where a page's bit is.
#[inline]
fn position(page: LinearIndex) -> usize {
    page.0 as usize
}

fn positions(range: &Range<LinearIndex>) -> Range<usize> {
    position(range.start)..position(range.end)
}

/// The page whose bit is at a position, or the end of all.
#[inline]
fn page_at(position: usize) -> LinearIndex {
    LinearIndex(count(position))
}

/// Sets are equal that have the same members, however they keep them.
impl PartialEq for PageSet {
    fn eq(&self, other: &Self) -> bool {
        let is_equal = |(number, (mine, theirs)): (usize, (&Chunk, &Chunk))| {
            (0..self.chunk_words(number)).all(|word| mine.word(word) == theirs.word(word))
        };
        let chunks = self.chunks.iter().zip(&other.chunks);
        self.len == other.len && chunks.enumerate().all(is_equal)
    }
}

impl Eq for PageSet {}
