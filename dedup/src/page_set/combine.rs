//! Sets combined, and compared, with sets.

use std::ops::Range;

use super::chunk::{CHUNK, Chunk, combine, pieces};
use super::{PageSet, page_at, positions};
use crate::LinearIndex;

impl PageSet {
    /// Adds every member of `other`.
    ///
    /// # Panics
    ///
    /// When the sets are over different page counts.
    pub fn union_with(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "sets over different page counts");
        self.union_within(other, self.whole());
    }

    /// Takes out every member of `other`.
    ///
    /// # Panics
    ///
    /// When the sets are over different page counts.
    pub fn subtract(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "sets over different page counts");
        self.subtract_within(other, self.whole());
    }

    /// Takes out every member of `other` that lies in `range`.
    ///
    /// # Panics
    ///
    /// When the range reaches beyond the end.
    pub fn subtract_within(&mut self, other: &Self, range: Range<LinearIndex>) {
        assert!(range.end <= self.end().min(other.end()), "{} is too high", range.end);
        for (chunk, within) in pieces(positions(&range)) {
            match (&self.chunks[chunk], &other.chunks[chunk]) {
                (Chunk::Empty, _) | (_, Chunk::Empty) => {}
                (_, Chunk::Full) => {
                    let start = chunk * CHUNK;
                    self.remove_range(page_at(start + within.start)..page_at(start + within.end));
                }
                (_, Chunk::Words(theirs)) => {
                    let is_last = self.is_at_end(chunk, within.end);
                    let words = self.words_mut(chunk);
                    combine(words, theirs, within, |mine, theirs| mine & !theirs);
                    // Sets are worked off in ascending order.
                    if is_last {
                        self.chunks[chunk].shrink();
                    }
                }
            }
        }
    }

    /// Adds every member of `other` that lies in `range`.
    ///
    /// # Panics
    ///
    /// When the range reaches beyond the end.
    pub fn union_within(&mut self, other: &Self, range: Range<LinearIndex>) {
        assert!(range.end <= self.end().min(other.end()), "{} is too high", range.end);
        for (chunk, within) in pieces(positions(&range)) {
            match (&self.chunks[chunk], &other.chunks[chunk]) {
                (Chunk::Full, _) | (_, Chunk::Empty) => {}
                (_, Chunk::Full) => {
                    let start = chunk * CHUNK;
                    self.insert_range(page_at(start + within.start)..page_at(start + within.end));
                }
                (_, Chunk::Words(theirs)) => {
                    let words = self.words_mut(chunk);
                    combine(words, theirs, within, |mine, theirs| mine | theirs);
                    self.chunks[chunk].shrink();
                }
            }
        }
    }

    /// Keeps only members of `other`.
    ///
    /// # Panics
    ///
    /// When the sets are over different page counts.
    pub fn intersect_with(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "sets over different page counts");
        for (chunk, theirs) in other.chunks.iter().enumerate() {
            match (&self.chunks[chunk], theirs) {
                (Chunk::Empty, _) | (_, Chunk::Full) => {}
                (_, Chunk::Empty) => self.chunks[chunk] = Chunk::Empty,
                (_, Chunk::Words(theirs)) => {
                    for (mine, theirs) in self.words_mut(chunk).iter_mut().zip(theirs) {
                        *mine &= theirs;
                    }
                    self.chunks[chunk].shrink();
                }
            }
        }
    }

    /// How many members are in `other`, too. O(pages / 64).
    ///
    /// # Panics
    ///
    /// When the sets are over different page counts.
    pub fn count_common(&self, other: &Self) -> u32 {
        assert_eq!(self.len, other.len, "sets over different page counts");
        self.count_masked(|chunk, word| other.chunks[chunk].word(word))
    }

    /// How many members are in none of `others`. O(pages / 64 × (others + 1)).
    ///
    /// # Panics
    ///
    /// When the sets are over different page counts.
    pub fn count_without(&self, others: &[&Self]) -> u32 {
        let are_alike = others.iter().all(|other| self.len == other.len);
        assert!(are_alike, "sets over different page counts");
        self.count_masked(|chunk, word| {
            !others.iter().fold(0, |union, other| union | other.chunks[chunk].word(word))
        })
    }

    /// How many members are in `mask`, which is called with the number of a chunk and a word in it.
    fn count_masked(&self, mask: impl Fn(usize, usize) -> u64) -> u32 {
        let chunks = self.chunks.iter().enumerate();
        let chunks = chunks.filter(|(_, chunk)| !matches!(chunk, Chunk::Empty));
        let masked = |number: usize, chunk: &Chunk| -> u32 {
            let words = 0..self.chunk_words(number);
            words.map(|word| (chunk.word(word) & mask(number, word)).count_ones()).sum()
        };
        chunks.map(|(number, chunk)| masked(number, chunk)).sum()
    }

    /// Whether every member is one of `other`, too. O(pages / 64).
    ///
    /// # Panics
    ///
    /// When the sets are over different page counts.
    pub fn is_subset(&self, other: &Self) -> bool {
        assert_eq!(self.len, other.len, "sets over different page counts");
        self.chunks.iter().zip(&other.chunks).all(|chunks| match chunks {
            (Chunk::Empty, _) | (_, Chunk::Full) => true,
            (mine, Chunk::Empty) => mine.is_empty(),
            (Chunk::Full, Chunk::Words(theirs)) => theirs.iter().all(|&word| word == u64::MAX),
            (Chunk::Words(mine), Chunk::Words(theirs)) => {
                mine.iter().zip(theirs).all(|(mine, theirs)| mine & !theirs == 0)
            }
        })
    }
}
