//! What is in a set, in order: members, runs, stretches.

use std::ops::Range;

use super::chunk::{BITS, CHUNK, CHUNK_WORDS, Chunk};
use super::{PageSet, page_at, position};
use crate::LinearIndex;

impl PageSet {
    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = LinearIndex> + '_ {
        let chunks = self.chunks.iter().enumerate();
        let chunks = chunks.filter(|(_, chunk)| !matches!(chunk, Chunk::Empty));
        let words = chunks.flat_map(|(number, chunk)| {
            let first = number * CHUNK_WORDS;
            (0..self.chunk_words(number)).map(move |word| (first + word, chunk.word(word)))
        });
        words.flat_map(|(position, word)| {
            let (first, mut rest) = (page_at(position * BITS), word);
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros();
                    rest &= rest - 1;
                    first.offset(bit)
                })
            })
        })
    }

    /// The maximal runs of consecutive members, in ascending order.
    pub fn runs(&self) -> impl Iterator<Item = Range<LinearIndex>> + '_ {
        self.runs_within(self.whole())
    }

    /// The maximal runs of consecutive members within `range`, in ascending order. O(range / 64 +
    /// runs).
    pub fn runs_within(
        &self,
        range: Range<LinearIndex>,
    ) -> impl Iterator<Item = Range<LinearIndex>> + '_ {
        let (mut next, stop) = (position(range.start), position(range.end).min(self.len));
        std::iter::from_fn(move || {
            let start = self.find(next..stop, 0)?;
            let end = self.find(start..stop, u64::MAX).unwrap_or(stop);
            next = end;
            Some(page_at(start)..page_at(end))
        })
    }

    /// The first member that is not below `start`. O(pages in between / 64), and nothing for stretches
    /// without any.
    pub fn first_from(&self, start: LinearIndex) -> Option<LinearIndex> {
        self.find(position(start)..self.len, 0).map(page_at)
    }

    /// The end of the longest range from `start` on that has at most about `members` members (a
    /// word's worth more, at most) and `span` pages. O(span / 64).
    pub fn stretch(&self, start: LinearIndex, members: u32, span: u32) -> LinearIndex {
        let start = position(start);
        let stop = start.saturating_add(span as usize).min(self.len);
        let (mut next, mut count) = (start, 0);
        while next < stop && count < members {
            let chunk = &self.chunks[next / CHUNK];
            if matches!(chunk, Chunk::Empty) {
                next = stop.min((next / CHUNK + 1) * CHUNK);
                continue;
            }
            let end = stop.min((next / BITS + 1) * BITS);
            let word = chunk.word(next % CHUNK / BITS);
            count += (word >> (next % BITS)).count_ones();
            next = end;
        }
        page_at(next)
    }

    /// The first position in `range` whose bit, inverted by `invert`, is set. O(range / 64).
    fn find(&self, range: Range<usize>, invert: u64) -> Option<usize> {
        let mut start = range.start;
        while start < range.end {
            let number = start / CHUNK;
            let end = range.end.min((number + 1) * CHUNK);
            let words = match &self.chunks[number] {
                Chunk::Words(words) => words,
                chunk if chunk.word(0) == invert => {
                    start = end;
                    continue;
                }
                _ => return Some(start),
            };
            while start < end {
                let word = (words[start % CHUNK / BITS] ^ invert) & (u64::MAX << (start % BITS));
                if word != 0 {
                    let found = start / BITS * BITS + word.trailing_zeros() as usize;
                    return (found < range.end).then_some(found);
                }
                start = (start / BITS + 1) * BITS;
            }
        }
        None
    }
}
