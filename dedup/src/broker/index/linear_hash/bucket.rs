//! A bucket of the index: values in no order, and one byte of each one's key.

const STEP: usize = Bucket::STEP;
/// Words of a step: a value each, and four tags to a word.
const STEP_WORDS: usize = STEP + STEP / 4;
/// Entries whose keys are looked up together in a split.
const SPLIT_BATCH: usize = 64;

/// Values and tags in one allocation.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// The values, then the tags from the lowest byte of a word up; the last few of both are free.
    words: Box<[u32]>,
    len: usize,
}

impl Bucket {
    /// Entries by which a bucket grows and shrinks: as many tags as a machine word holds.
    pub(super) const STEP: usize = 8;

    fn with_capacity(count: usize) -> Self {
        let words = vec![0; count.div_ceil(STEP) * STEP_WORDS].into_boxed_slice();
        Self { words, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn capacity(&self) -> usize {
        self.words.len() / STEP_WORDS * STEP
    }

    /// What the allocator takes for it: glibc's chunk, which is a header of 8 bytes and padding to 16.
    pub(super) fn heap_bytes(&self) -> usize {
        match size_of_val(&*self.words) {
            0 => 0,
            len_bytes => (len_bytes + 8).next_multiple_of(16),
        }
    }

    /// The position of the entry that has this tag and a value that is the one sought.
    pub(super) fn position(&self, tag: u8, is_sought: impl Fn(u32) -> bool) -> Option<usize> {
        const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
        let (values, tags) = self.words.split_at(self.capacity());
        let pattern = u64::from_ne_bytes([tag; 8]);
        for (step, pair) in tags.chunks_exact(2).enumerate() {
            // Eight tags at once: a byte of `equal` has its top bit set where the tag is this one.
            let differing = (u64::from(pair[0]) | u64::from(pair[1]) << 32) ^ pattern;
            let mut equal = !(((differing & LOW) + LOW) | differing | LOW);
            while equal != 0 {
                let position = step * STEP + equal.trailing_zeros() as usize / 8;
                if position < self.len && is_sought(values[position]) {
                    return Some(position);
                }
                equal &= equal - 1;
            }
        }
        None
    }

    pub(super) fn value(&self, position: usize) -> u32 {
        self.words[position]
    }

    /// Puts another value, of the same key, in a value's place and returns the old one.
    pub(super) fn replace(&mut self, position: usize, value: u32) -> u32 {
        std::mem::replace(&mut self.words[position], value)
    }

    pub(super) fn push(&mut self, tag: u8, value: u32) {
        if self.len == self.capacity() {
            self.set_capacity(self.len + STEP);
        }
        self.len += 1;
        self.put(self.len - 1, tag, value);
    }

    /// Takes an entry out; the last one takes its place.
    pub(super) fn swap_remove(&mut self, position: usize) -> u32 {
        let removed = self.value(position);
        let last = self.len - 1;
        self.put(position, self.tag(last), self.value(last));
        self.len = last;
        // Not at once, or an entry that comes and goes would pay for it each time.
        if self.len == 0 || self.capacity() - self.len >= 2 * STEP {
            self.fit();
        }
        removed
    }

    /// Moves the entries whose values belong to the upper half of its keys to a bucket of their own.
    pub(super) fn split(&mut self, is_upper: impl Fn(u32) -> bool) -> Self {
        let whole = std::mem::take(self);
        let mut halves = [(); 2].map(|()| Self::with_capacity(whole.len / 2));
        for first in (0..whole.len).step_by(SPLIT_BATCH) {
            let batch = first..whole.len.min(first + SPLIT_BATCH);
            // Every key is a cache miss. Without a branch on them they are waited for together.
            let upper = batch.clone().rev().fold(0_u64, |upper, position| {
                upper << 1 | u64::from(is_upper(whole.value(position)))
            });
            for position in batch {
                let half = &mut halves[usize::from(upper >> (position - first) & 1 == 1)];
                half.push(whole.tag(position), whole.value(position));
            }
        }
        let [lower, upper] = &mut halves;
        lower.fit();
        upper.fit();
        let [lower, upper] = halves;
        *self = lower;
        upper
    }

    /// Takes all entries of another bucket in.
    pub(super) fn append(&mut self, other: &Self) {
        self.set_capacity((self.len + other.len).next_multiple_of(STEP));
        other.entries().for_each(|(tag, value)| self.push(tag, value));
    }

    pub(super) fn values(&self) -> impl Iterator<Item = u32> + '_ {
        self.words[..self.len].iter().copied()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (u8, u32)> + '_ {
        (0..self.len).map(|position| (self.tag(position), self.value(position)))
    }

    fn tag(&self, position: usize) -> u8 {
        self.words[self.capacity() + position / 4].to_le_bytes()[position % 4]
    }

    fn put(&mut self, position: usize, tag: u8, value: u32) {
        self.words[position] = value;
        let word = &mut self.words[self.capacity() + position / 4];
        let mut tags = word.to_le_bytes();
        tags[position % 4] = tag;
        *word = u32::from_le_bytes(tags);
    }

    /// Gives back all steps that hold nothing.
    fn fit(&mut self) {
        let capacity = self.len.next_multiple_of(STEP);
        if capacity < self.capacity() {
            self.set_capacity(capacity);
        }
    }

    /// Makes room for exactly so many entries, a number of whole steps that holds those it has.
    fn set_capacity(&mut self, capacity: usize) {
        let before = self.capacity();
        if capacity < before {
            // To shrink the block in place would leave a small free chunk behind each time. glibc consolidates
            // them all at once, which took 17 ms in a tree of 10 million entries.
            let (values, tags) = self.words.split_at(before);
            self.words = [&values[..capacity], &tags[..capacity / 4]].concat().into_boxed_slice();
            return;
        }
        let len_words = capacity / STEP * STEP_WORDS;
        let mut words = std::mem::take(&mut self.words).into_vec();
        words.reserve_exact(len_words - words.len());
        words.resize(len_words, 0);
        words.copy_within(before..before + before / 4, capacity);
        self.words = words.into_boxed_slice();
    }
}
