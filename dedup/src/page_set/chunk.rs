//! A stretch of a set: words of bits, and none where all or no pages are in it.

use std::ops::Range;

pub(super) const BITS: usize = u64::BITS as usize;

/// Words in a chunk: 4 KiB of bits for 128 MiB of pages. In tests of this crate chunks are short, so that
/// small sets have many.
pub(super) const CHUNK_WORDS: usize = if cfg!(test) { 2 } else { 512 };
pub(super) const CHUNK: usize = CHUNK_WORDS * BITS;

/// The pages of a set from a multiple of [`CHUNK`] on.
#[derive(Debug, Clone)]
pub(super) enum Chunk {
    /// None is in the set.
    Empty,
    /// All are, and there are [`CHUNK`] of them.
    Full,
    /// Those whose bits are set.
    Words(Box<[u64]>),
}

impl Chunk {
    pub(super) fn word(&self, position: usize) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Full => u64::MAX,
            Self::Words(words) => words[position],
        }
    }

    /// Its words, `len` of them, made if there are none.
    pub(super) fn words_mut(&mut self, len: usize) -> &mut [u64] {
        if !matches!(self, Self::Words(_)) {
            let word = self.word(0);
            *self = Self::Words(vec![word; len].into());
        }
        match self {
            Self::Words(words) => words,
            Self::Empty | Self::Full => unreachable!("words were just made"),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full => false,
            Self::Words(words) => words.iter().all(|&word| word == 0),
        }
    }

    /// Gives its words back if no bit is set.
    pub(super) fn shrink(&mut self) {
        if matches!(self, Self::Words(_)) && self.is_empty() {
            *self = Self::Empty;
        }
    }
}

/// The chunks that a range touches, and which part of each, relative to the chunk.
pub(super) fn pieces(range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        (start < range.end).then(|| {
            let chunk = start / CHUNK;
            let end = range.end.min((chunk + 1) * CHUNK);
            let within = start - chunk * CHUNK..end - chunk * CHUNK;
            start = end;
            (chunk, within)
        })
    })
}

/// Combines a part of two chunks' words; where `theirs` is 0, `mine` must come out as it was.
pub(super) fn combine(
    mine: &mut [u64],
    theirs: &[u64],
    within: Range<usize>,
    with: impl Fn(u64, u64) -> u64,
) {
    if within.len() == CHUNK {
        for (mine, &theirs) in mine.iter_mut().zip(theirs) {
            *mine = with(*mine, theirs);
        }
    } else {
        for_masks(within, |word, mask| mine[word] = with(mine[word], theirs[word] & mask));
    }
}

/// Calls `apply` with each word position that `range` touches and the mask of its bits there.
pub(super) fn for_masks(range: Range<usize>, mut apply: impl FnMut(usize, u64)) {
    let mut start = range.start;
    while start < range.end {
        let end = range.end.min((start / BITS + 1) * BITS);
        let width = end - start;
        let ones = if width == BITS { u64::MAX } else { (1 << width) - 1 };
        apply(start / BITS, ones << (start % BITS));
        start = end;
    }
}
