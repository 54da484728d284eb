//! A fixed-size set of linear indexes: one bit each, and none where all or no pages are in it.
#![forbid(unsafe_code)]

mod chunk;
mod combine;
mod runs;
#[cfg(test)]
mod tests;

use std::ops::Range;

use chunk::{BITS, CHUNK, CHUNK_WORDS, Chunk, for_masks, pieces};

/// A set of page numbers below a length that is fixed when it is made.
///
/// It takes memory only for stretches of which some numbers are in the set and others are not.
#[derive(Debug, Clone)]
pub struct Bitmap {
    chunks: Vec<Chunk>,
    len: usize,
}

impl Bitmap {
    /// The empty set over `0..len`.
    pub fn new(len: usize) -> Self {
        Self { chunks: vec![Chunk::Empty; len.div_ceil(CHUNK)], len }
    }

    /// The set of all of `0..len`.
    pub fn full(len: usize) -> Self {
        let mut bitmap = Self::new(len);
        bitmap.insert_range(0..len);
        bitmap
    }

    /// How many numbers the set is over: the exclusive upper bound of its members.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no number is in the set.
    pub fn is_empty(&self) -> bool {
        self.chunks.iter().all(Chunk::is_empty)
    }

    /// How many numbers are in the set. O(len / 64).
    pub fn count(&self) -> usize {
        let count = |chunk: &Chunk| match chunk {
            Chunk::Empty => 0,
            Chunk::Full => CHUNK,
            Chunk::Words(words) => words.iter().map(|word| word.count_ones() as usize).sum(),
        };
        self.chunks.iter().map(count).sum()
    }

    /// How many numbers of `range`, which must not reach beyond the length, are in the set. O(range / 64).
    pub(crate) fn count_within(&self, range: Range<usize>) -> usize {
        let count = |(chunk, within): (usize, Range<usize>)| match &self.chunks[chunk] {
            Chunk::Empty => 0,
            Chunk::Full => within.len(),
            Chunk::Words(words) => {
                let mut count = 0;
                for_masks(within, |word, mask| count += (words[word] & mask).count_ones() as usize);
                count
            }
        };
        pieces(range).map(count).sum()
    }

    /// Whether `index` is in the set.
    pub fn contains(&self, index: usize) -> bool {
        let word = self.chunks[index / CHUNK].word(index % CHUNK / BITS);
        word & (1 << (index % BITS)) != 0
    }

    /// Puts `index` in; says whether it was new.
    ///
    /// # Panics
    ///
    /// When `index` is not below the length.
    pub fn insert(&mut self, index: usize) -> bool {
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

    /// Takes `index` out; says whether it was in.
    pub fn remove(&mut self, index: usize) -> bool {
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

    /// Puts every number of `range` in.
    ///
    /// # Panics
    ///
    /// When the range reaches beyond the length.
    pub fn insert_range(&mut self, range: Range<usize>) {
        assert!(range.end <= self.len, "{} is above {}", range.end, self.len);
        for (chunk, within) in pieces(range) {
            if within.len() == CHUNK {
                self.chunks[chunk] = Chunk::Full;
            } else if !matches!(self.chunks[chunk], Chunk::Full) {
                let words = self.words_mut(chunk);
                for_masks(within, |word, mask| words[word] |= mask);
            }
        }
    }

    /// Takes every number of `range` out.
    ///
    /// # Panics
    ///
    /// When the range reaches beyond the length.
    pub fn remove_range(&mut self, range: Range<usize>) {
        assert!(range.end <= self.len, "{} is above {}", range.end, self.len);
        for (chunk, within) in pieces(range) {
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

    /// Clears the bits of the last word that stand for no number, which a source of changes may have
    /// set; says whether it had.
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

    /// Puts numbers in by their bits, 64 to a word, the lowest number in the lowest bit, `first` in the
    /// lowest of the first word: as a source of changes has them that speaks this layout (KVM's dirty
    /// log). Bits for numbers that the set is not over must be clear. O(words).
    pub fn insert_words(&mut self, first: usize, words: &[u64]) {
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

    /// Whether a number, relative to its chunk, is one above the chunk's last.
    fn is_at_end(&self, chunk: usize, end: usize) -> bool {
        end == CHUNK || chunk * CHUNK + end == self.len
    }
}

/// Sets are equal that have the same members, however they keep them.
impl PartialEq for Bitmap {
    fn eq(&self, other: &Self) -> bool {
        let is_equal = |(number, (mine, theirs)): (usize, (&Chunk, &Chunk))| {
            (0..self.chunk_words(number)).all(|word| mine.word(word) == theirs.word(word))
        };
        let chunks = self.chunks.iter().zip(&other.chunks);
        self.len == other.len && chunks.enumerate().all(is_equal)
    }
}

impl Eq for Bitmap {}
