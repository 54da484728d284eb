//! A fixed-size set of linear indexes: one bit each, and none where all or no pages are in it.
#![forbid(unsafe_code)]

use std::ops::Range;

const BITS: usize = u64::BITS as usize;

/// Words in a chunk: 4 KiB of bits for 128 MiB of pages. In tests of this crate chunks are short, so that
/// small sets have many.
const CHUNK_WORDS: usize = if cfg!(test) { 2 } else { 512 };
const CHUNK: usize = CHUNK_WORDS * BITS;

/// The numbers of a set from a multiple of [`CHUNK`] on.
#[derive(Debug, Clone)]
enum Chunk {
    /// None is in the set.
    Empty,
    /// All are, and there are [`CHUNK`] of them.
    Full,
    /// Those whose bits are set.
    Words(Box<[u64]>),
}

impl Chunk {
    fn word(&self, position: usize) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Full => u64::MAX,
            Self::Words(words) => words[position],
        }
    }

    /// Its words, `len` of them, made if there are none.
    fn words_mut(&mut self, len: usize) -> &mut [u64] {
        if !matches!(self, Self::Words(_)) {
            let word = self.word(0);
            *self = Self::Words(vec![word; len].into());
        }
        match self {
            Self::Words(words) => words,
            Self::Empty | Self::Full => unreachable!("words were just made"),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full => false,
            Self::Words(words) => words.iter().all(|&word| word == 0),
        }
    }

    /// Gives its words back if no bit is set.
    fn shrink(&mut self) {
        if matches!(self, Self::Words(_)) && self.is_empty() {
            *self = Self::Empty;
        }
    }
}

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

    /// Adds every member of `other`.
    ///
    /// # Panics
    ///
    /// When the sets are over different lengths.
    pub fn union_with(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "sets over different page counts");
        self.union_within(other, 0..self.len);
    }

    /// Takes out every member of `other`.
    ///
    /// # Panics
    ///
    /// When the sets are over different lengths.
    pub fn subtract(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "sets over different page counts");
        self.subtract_within(other, 0..self.len);
    }

    /// Takes out every member of `other` that lies in `range`.
    ///
    /// # Panics
    ///
    /// When the range reaches beyond the length.
    pub fn subtract_within(&mut self, other: &Self, range: Range<usize>) {
        assert!(range.end <= self.len.min(other.len), "{} is too high", range.end);
        for (chunk, within) in pieces(range) {
            match (&self.chunks[chunk], &other.chunks[chunk]) {
                (Chunk::Empty, _) | (_, Chunk::Empty) => {}
                (_, Chunk::Full) => {
                    let start = chunk * CHUNK;
                    self.remove_range(start + within.start..start + within.end);
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
    /// When the range reaches beyond the length.
    pub fn union_within(&mut self, other: &Self, range: Range<usize>) {
        assert!(range.end <= self.len.min(other.len), "{} is too high", range.end);
        for (chunk, within) in pieces(range) {
            match (&self.chunks[chunk], &other.chunks[chunk]) {
                (Chunk::Full, _) | (_, Chunk::Empty) => {}
                (_, Chunk::Full) => {
                    let start = chunk * CHUNK;
                    self.insert_range(start + within.start..start + within.end);
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
    /// When the sets are over different lengths.
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

    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let chunks = self.chunks.iter().enumerate();
        let chunks = chunks.filter(|(_, chunk)| !matches!(chunk, Chunk::Empty));
        let words = chunks.flat_map(|(number, chunk)| {
            let first = number * CHUNK_WORDS;
            (0..self.chunk_words(number)).map(move |word| (first + word, chunk.word(word)))
        });
        words.flat_map(|(position, word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    position * BITS + bit
                })
            })
        })
    }

    /// The maximal runs of consecutive members, in ascending order.
    pub fn runs(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.runs_within(0..self.len)
    }

    /// The maximal runs of consecutive members within `range`, in ascending order. O(range / 64 +
    /// runs).
    pub fn runs_within(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        let (mut next, stop) = (range.start, range.end.min(self.len));
        std::iter::from_fn(move || {
            let start = self.find(next..stop, 0)?;
            let end = self.find(start..stop, u64::MAX).unwrap_or(stop);
            next = end;
            Some(start..end)
        })
    }

    /// The end of the longest range from `start` on that has at most about `members` members (a
    /// word's worth more, at most) and `span` numbers. O(span / 64).
    pub fn stretch(&self, start: usize, members: usize, span: usize) -> usize {
        let stop = start.saturating_add(span).min(self.len);
        let (mut next, mut count) = (start, 0);
        while next < stop && count < members {
            let chunk = &self.chunks[next / CHUNK];
            if matches!(chunk, Chunk::Empty) {
                next = stop.min((next / CHUNK + 1) * CHUNK);
                continue;
            }
            let end = stop.min((next / BITS + 1) * BITS);
            let word = chunk.word(next % CHUNK / BITS);
            count += (word >> (next % BITS)).count_ones() as usize;
            next = end;
        }
        next
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

    /// The first number in `range` whose bit, inverted by `invert`, is set. O(range / 64).
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

/// The chunks that a range touches, and which part of each, relative to the chunk.
fn pieces(range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
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
fn combine(mine: &mut [u64], theirs: &[u64], within: Range<usize>, with: impl Fn(u64, u64) -> u64) {
    if within.len() == CHUNK {
        for (mine, &theirs) in mine.iter_mut().zip(theirs) {
            *mine = with(*mine, theirs);
        }
    } else {
        for_masks(within, |word, mask| mine[word] = with(mine[word], theirs[word] & mask));
    }
}

/// Calls `apply` with each word position that `range` touches and the mask of its bits there.
fn for_masks(range: Range<usize>, mut apply: impl FnMut(usize, u64)) {
    let mut start = range.start;
    while start < range.end {
        let end = range.end.min((start / BITS + 1) * BITS);
        let width = end - start;
        let ones = if width == BITS { u64::MAX } else { (1 << width) - 1 };
        apply(start / BITS, ones << (start % BITS));
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_set_of_numbers(
            len in 1_usize..300,
            ops in prop::collection::vec((any::<bool>(), 0_usize..300, 0_usize..90), 0..60),
        ) {
            let mut bitmap = Bitmap::new(len);
            let mut model = BTreeSet::new();
            for (insert, start, count) in ops {
                let range = start.min(len)..(start + count).min(len);
                if insert {
                    model.extend(range.clone());
                    bitmap.insert_range(range);
                } else {
                    range.clone().for_each(|index| { model.remove(&index); });
                    bitmap.remove_range(range);
                }
                prop_assert!(bitmap.iter().eq(model.iter().copied()));
                prop_assert!(bitmap.runs().flatten().eq(model.iter().copied()));
                prop_assert_eq!(bitmap.count(), model.len());
                let maximal = bitmap.runs().zip(bitmap.runs().skip(1)).all(|(a, b)| a.end < b.start);
                prop_assert!(maximal);
            }
        }

        #[test]
        fn parts_of_a_set_agree_with_the_whole(
            members in prop::collection::btree_set(0_usize..300, 0..200),
            others in prop::collection::btree_set(0_usize..300, 0..200),
            start in 0_usize..300, end in 0_usize..300, limit in 1_usize..100,
        ) {
            let set = |members: &BTreeSet<usize>| {
                let mut bitmap = Bitmap::new(300);
                for &member in members {
                    bitmap.insert(member);
                }
                bitmap
            };
            let (bitmap, other) = (set(&members), set(&others));
            let within = start.min(end)..start.max(end);
            let inside = members.iter().copied().filter(|member| within.contains(member));
            prop_assert!(bitmap.runs_within(within.clone()).flatten().eq(inside));
            let mut rest = bitmap.clone();
            rest.subtract_within(&other, within.clone());
            let mut more = bitmap.clone();
            more.union_within(&other, within.clone());
            let added = others.iter().copied().filter(|other| within.contains(other));
            let expected: BTreeSet<usize> = members.iter().copied().chain(added).collect();
            prop_assert!(more.iter().eq(expected));
            let kept = |member: &usize| !(others.contains(member) && within.contains(member));
            prop_assert!(rest.iter().eq(members.iter().copied().filter(kept)));
            let stop = bitmap.stretch(start, limit, 100);
            prop_assert!(stop <= (start + 100).min(300) && stop > start);
            let count = members.range(start..stop).count();
            prop_assert!(count < limit + BITS);
            prop_assert!(count >= limit || stop == (start + 100).min(300));
        }
    }

    proptest! {
        #[test]
        fn sets_are_combined_as_sets_of_numbers_are(
            mine in prop::collection::vec((0_usize..700, 0_usize..300), 0..6),
            theirs in prop::collection::vec((0_usize..700, 0_usize..300), 0..6),
            single in 0_usize..700, first in 0_usize..700, words in prop::collection::vec(any::<u64>(), 0..4),
        ) {
            let set = |runs: &[(usize, usize)]| {
                let mut bitmap = Bitmap::new(700);
                let mut model = BTreeSet::new();
                for &(start, count) in runs {
                    let range = start..(start + count).min(700);
                    bitmap.insert_range(range.clone());
                    model.extend(range);
                }
                (bitmap, model)
            };
            let ((mine, my_model), (theirs, their_model)) = (set(&mine), set(&theirs));
            let same = |bitmap: &Bitmap, model: &BTreeSet<usize>| {
                let mut other = Bitmap::new(700);
                for &member in model {
                    other.insert(member);
                }
                bitmap.iter().eq(model.iter().copied())
                    && *bitmap == other
                    && bitmap.is_empty() == model.is_empty()
                    && (0..700).all(|index| bitmap.contains(index) == model.contains(&index))
            };
            let mut set = mine.clone();
            set.union_with(&theirs);
            prop_assert!(same(&set, &my_model.union(&their_model).copied().collect()));
            let mut set = mine.clone();
            set.subtract(&theirs);
            prop_assert!(same(&set, &my_model.difference(&their_model).copied().collect()));
            let mut set = mine.clone();
            set.intersect_with(&theirs);
            prop_assert!(same(&set, &my_model.intersection(&their_model).copied().collect()));
            let (mut set, mut model) = (mine.clone(), my_model);
            prop_assert_eq!(set.remove(single), model.remove(&single));
            prop_assert!(same(&set, &model));
            prop_assert!(set.insert(single));
            model.insert(single);
            let numbers = (0..64 * words.len()).filter(|bit| words[bit / 64] & (1 << (bit % 64)) != 0);
            model.extend(numbers.map(|bit| first + bit).filter(|&number| number < 700));
            set.insert_words(first, &words);
            set.clear_beyond_end();
            prop_assert!(same(&set, &model));
        }
    }

    #[test]
    fn a_set_takes_memory_only_where_some_are_in_it_and_others_are_not() {
        let len = 10 * CHUNK;
        let least = Bitmap::new(len).heap_bytes();
        let mut set = Bitmap::full(len);
        assert_eq!(set.heap_bytes(), least);
        set.remove(CHUNK);
        assert_eq!(set.heap_bytes(), least + CHUNK / 8);
        // Worked off part by part, as a pass does it.
        let all = Bitmap::full(len);
        (0..len)
            .step_by(50)
            .for_each(|start| set.subtract_within(&all, start..len.min(start + 50)));
        assert_eq!((set.is_empty(), set.heap_bytes()), (true, least));
        let some = |members: &[usize]| {
            let mut set = Bitmap::new(len);
            for &member in members {
                assert!(set.insert(member));
            }
            set
        };
        let mut set = some(&[1, 2 * CHUNK]);
        set.subtract(&some(&[1]));
        set.intersect_with(&some(&[5]));
        assert_eq!(set.heap_bytes(), least);
        set.union_with(&Bitmap::new(len));
        assert_eq!(set.heap_bytes(), least);
    }

    #[test]
    fn a_full_set_has_one_run() {
        assert_eq!(Bitmap::full(130).runs().collect::<Vec<_>>(), vec![0..130]);
        assert_eq!(Bitmap::full(128).runs().collect::<Vec<_>>(), vec![0..128]);
    }
}
