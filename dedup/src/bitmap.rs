//! A fixed-size set of linear indexes, one bit each.
#![forbid(unsafe_code)]

use std::ops::Range;

const BITS: usize = u64::BITS as usize;

/// A set of page numbers below a length that is fixed when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: usize,
}

impl Bitmap {
    /// The empty set over `0..len`.
    pub fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(BITS)], len }
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
        self.words.iter().all(|&word| word == 0)
    }

    /// How many numbers are in the set. O(len / 64).
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether `index` is in the set.
    pub fn contains(&self, index: usize) -> bool {
        self.words[index / BITS] & (1 << (index % BITS)) != 0
    }

    /// Puts `index` in; says whether it was new.
    ///
    /// # Panics
    ///
    /// When `index` is not below the length.
    pub fn insert(&mut self, index: usize) -> bool {
        assert!(index < self.len, "{index} is not below {}", self.len);
        let (word, bit) = (&mut self.words[index / BITS], 1 << (index % BITS));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Takes `index` out; says whether it was in.
    pub fn remove(&mut self, index: usize) -> bool {
        let (word, bit) = (&mut self.words[index / BITS], 1 << (index % BITS));
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
        for_masks(range, |word, mask| self.words[word] |= mask);
    }

    /// Takes every number of `range` out.
    ///
    /// # Panics
    ///
    /// When the range reaches beyond the length.
    pub fn remove_range(&mut self, range: Range<usize>) {
        assert!(range.end <= self.len, "{} is above {}", range.end, self.len);
        for_masks(range, |word, mask| self.words[word] &= !mask);
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Adds every member of `other`.
    pub fn union_with(&mut self, other: &Self) {
        self.combine(other, |mine, theirs| mine | theirs);
    }

    /// Takes out every member of `other`.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, |mine, theirs| mine & !theirs);
    }

    /// Takes out every member of `other` that lies in `range`.
    ///
    /// # Panics
    ///
    /// When the range reaches beyond the length.
    pub fn subtract_within(&mut self, other: &Self, range: Range<usize>) {
        assert!(range.end <= self.len.min(other.len), "{} is too high", range.end);
        for_masks(range, |word, mask| self.words[word] &= !(other.words[word] & mask));
    }

    /// Adds every member of `other` that lies in `range`.
    ///
    /// # Panics
    ///
    /// When the range reaches beyond the length.
    pub fn union_within(&mut self, other: &Self, range: Range<usize>) {
        assert!(range.end <= self.len.min(other.len), "{} is too high", range.end);
        for_masks(range, |word, mask| self.words[word] |= other.words[word] & mask);
    }

    /// Keeps only members of `other`.
    pub fn intersect_with(&mut self, other: &Self) {
        self.combine(other, |mine, theirs| mine & theirs);
    }

    /// Clears the bits of the last word that stand for no number, which a source of changes may have
    /// set; says whether it had.
    pub(crate) fn clear_beyond_end(&mut self) -> bool {
        let used = self.len % BITS;
        let Some(last) = self.words.last_mut().filter(|_| used != 0) else {
            return false;
        };
        let beyond = *last & (u64::MAX << used);
        *last &= !beyond;
        beyond != 0
    }

    /// The words behind the set, 64 numbers each, the lowest number in the lowest bit: where a
    /// source of changes that speaks the same layout (KVM's dirty log) adds its own bits. The last
    /// word's bits above [`len`](Self::len) must stay clear.
    pub fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(position, &word)| {
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
            let end = stop.min((next / BITS + 1) * BITS);
            count += (self.words[next / BITS] >> (next % BITS)).count_ones() as usize;
            next = end;
        }
        next
    }

    /// Bytes the set takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    fn combine(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        assert_eq!(self.len, other.len, "sets over different page counts");
        for (mine, &theirs) in self.words.iter_mut().zip(&other.words) {
            *mine = with(*mine, theirs);
        }
    }

    /// The first number in `range` whose bit, inverted by `invert`, is set. O(range / 64).
    fn find(&self, range: Range<usize>, invert: u64) -> Option<usize> {
        let mut start = range.start;
        while start < range.end {
            let word = (self.words[start / BITS] ^ invert) & (u64::MAX << (start % BITS));
            if word != 0 {
                let found = start / BITS * BITS + word.trailing_zeros() as usize;
                return (found < range.end).then_some(found);
            }
            start = (start / BITS + 1) * BITS;
        }
        None
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

    #[test]
    fn a_full_set_has_one_run() {
        assert_eq!(Bitmap::full(130).runs().collect::<Vec<_>>(), vec![0..130]);
        assert_eq!(Bitmap::full(128).runs().collect::<Vec<_>>(), vec![0..128]);
    }
}
