//! The table under both trees: from a key to the item or node that has it.
//!
//! KSM keeps its stable and unstable pages in red-black trees, ordered by the pages' bytes. The names of
//! both are kept, but here a page has a fingerprint, and no order is needed, so both are
//! a hash index (docs/decisions/0005-linear-hashing-index.md).
//!
//! It is one by linear hashing (Litwin, "Linear hashing", VLDB 1980). The *buckets* lie in one vector of
//! any length. The number of a key's bucket is the low bits of its hash: as many as it takes to number all
//! buckets or, where there is no bucket of that number yet, one fewer. The index grows by splitting one
//! bucket at a time, in the order of their numbers, whenever the mean load passes a limit, and shrinks
//! by joining the last bucket to the one that it was split from. There is no directory, no
//! moment at which everything is moved, and no load at which memory doubles.
//!
//! A bucket holds a value and one byte of its key an entry; the rest of a value's key is looked up by the caller
//! (`key_of`). An entry costs 5.4 to 5.7 bytes, everything included, where a `BTreeMap` of keys and
//! values takes 19 to 23, and a lookup about three cache misses.
//!
//! The hash of a key is its product with a random odd number. Keyed hashes of pages need
//! no second one, but every agent of a domain has their secret. Of the products only the
//! high bits choose the bucket: d of them are equal for two keys, chosen without knowledge of
//! the multiplier, with a probability of at most 2 / 2^d (Dietzfelbinger et al., J. Algorithms 25, 1997).

mod bucket;
#[cfg(test)]
mod tests;

use bucket::Bucket;

use crate::fingerprint::Fingerprint;

/// Entries a bucket, on average, at which the next bucket is split.
const SPLIT_LOAD: usize = 128;
/// Entries a bucket, on average, below which the last bucket is joined to the one it was split from.
const JOIN_LOAD: usize = 112;
/// Buckets by which the vector of them grows at least.
const MIN_GROWTH: usize = 16;

/// A set of values, by their keys, which the caller has.
///
/// Every operation touches one bucket of some 128 entries, and two when the index grows or shrinks.
/// `key_of` must give each value in the index the key that it was put in with, and is called for no
/// others.
#[derive(Debug)]
pub(in crate::broker::index) struct LinearHashIndex {
    buckets: Vec<Bucket>,
    len: usize,
    /// What all buckets have on the heap.
    bucket_bytes: usize,
    multiplier: u64,
}

/// The hash of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hash {
    /// The low bits number the bucket.
    bits: u32,
    /// A part that has no bits in common with those.
    tag: u8,
}

impl Hash {
    fn of(key: Fingerprint, multiplier: u64) -> Self {
        let [a, b, c, d, tag, ..] = key.0.wrapping_mul(multiplier).to_be_bytes();
        Self { bits: u32::from_be_bytes([a, b, c, d]).reverse_bits(), tag }
    }
}

impl Default for LinearHashIndex {
    fn default() -> Self {
        // Without randomness an agent could slow its own domain down, and nothing else.
        Self::with_multiplier(getrandom::u64().unwrap_or(0x9e37_79b9_7f4a_7c15))
    }
}

impl LinearHashIndex {
    fn with_multiplier(multiplier: u64) -> Self {
        Self { buckets: Vec::new(), len: 0, bucket_bytes: 0, multiplier: multiplier | 1 }
    }

    pub(in crate::broker::index) fn len(&self) -> usize {
        self.len
    }

    /// The value that has this key.
    pub(in crate::broker::index) fn find(
        &self,
        key: Fingerprint,
        key_of: impl Fn(u32) -> Fingerprint,
    ) -> Option<u32> {
        let (bucket, position) = self.locate(key, key_of)?;
        Some(self.buckets[bucket].value(position))
    }

    /// Puts a value in. Its key must not be there yet.
    pub(in crate::broker::index) fn insert(
        &mut self,
        key: Fingerprint,
        value: u32,
        key_of: impl Fn(u32) -> Fingerprint,
    ) {
        debug_assert!(self.find(key, &key_of).is_none(), "{key:?} is there already");
        if self.len >= self.buckets.len() * SPLIT_LOAD {
            self.split(key_of);
        }
        let hash = self.hash(key);
        let index = self.bucket_at(hash.bits);
        self.change(index, |bucket| bucket.push(hash.tag, value));
        self.len += 1;
    }

    /// Puts another value in the place of the key's and returns the old one; `None`, and nothing
    /// done, when there is none.
    pub(in crate::broker::index) fn replace(
        &mut self,
        key: Fingerprint,
        value: u32,
        key_of: impl Fn(u32) -> Fingerprint,
    ) -> Option<u32> {
        let (bucket, position) = self.locate(key, key_of)?;
        Some(self.buckets[bucket].replace(position, value))
    }

    /// Takes the value that has this key out.
    pub(in crate::broker::index) fn remove(
        &mut self,
        key: Fingerprint,
        key_of: impl Fn(u32) -> Fingerprint,
    ) -> Option<u32> {
        let (index, position) = self.locate(key, key_of)?;
        let removed = self.change(index, |bucket| bucket.swap_remove(position));
        self.len -= 1;
        if self.len == 0 || self.len < (self.buckets.len() - 1) * JOIN_LOAD {
            self.join();
        }
        Some(removed)
    }

    /// All values, bucket by bucket.
    pub(in crate::broker::index) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.buckets.iter().flat_map(Bucket::values)
    }

    /// Bytes on the heap: whole capacities, with the allocator's header of each bucket. O(1).
    pub(in crate::broker::index) fn heap_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>() + self.bucket_bytes
    }

    /// Verifies every entry's place and tag, that no two have one key, and the sums. O(n).
    ///
    /// # Errors
    ///
    /// What does not hold, in words.
    pub(in crate::broker::index) fn check(
        &self,
        key_of: impl Fn(u32) -> Fingerprint,
    ) -> Result<(), String> {
        let (mut len, mut bytes) = (0, 0);
        for (index, bucket) in self.buckets.iter().enumerate() {
            let mut keys = Vec::with_capacity(bucket.len());
            for (tag, value) in bucket.entries() {
                let key = key_of(value);
                let hash = self.hash(key);
                if (self.bucket_at(hash.bits), hash.tag) != (index, tag) {
                    return Err(format!("value {value} of {key:?} has tag {tag} in {index}"));
                }
                keys.push(key);
            }
            // Equal keys are in one bucket.
            keys.sort_unstable();
            if let Some([key, _]) = keys.array_windows().find(|[a, b]| a == b) {
                return Err(format!("{key:?} is there twice"));
            }
            if bucket.capacity() >= bucket.len() + 2 * Bucket::STEP {
                return Err(format!("{} of {} used", bucket.len(), bucket.capacity()));
            }
            len += bucket.len();
            bytes += bucket.heap_bytes();
        }
        if (len, bytes) != (self.len, self.bucket_bytes) {
            let counted = (self.len, self.bucket_bytes);
            return Err(format!("{len} entries in {bytes} bytes, counted {counted:?}"));
        }
        let count = self.buckets.len();
        if len > count * SPLIT_LOAD || len < count.saturating_sub(1) * JOIN_LOAD {
            return Err(format!("{len} entries in {count} buckets"));
        }
        Ok(())
    }

    fn hash(&self, key: Fingerprint) -> Hash {
        Hash::of(key, self.multiplier)
    }

    /// The number of the bucket for these bits of a hash.
    fn bucket_at(&self, bits: u32) -> usize {
        let mask = self.buckets.len().next_power_of_two() - 1;
        let number = bits as usize & mask;
        // The bucket that it will be split from has not been yet: what would be here is there.
        if number < self.buckets.len() { number } else { number & mask >> 1 }
    }

    /// The bucket and the position there of a key.
    fn locate(
        &self,
        key: Fingerprint,
        key_of: impl Fn(u32) -> Fingerprint,
    ) -> Option<(usize, usize)> {
        let hash = self.hash(key);
        let index = self.bucket_at(hash.bits);
        let bucket = self.buckets.get(index)?;
        let position = bucket.position(hash.tag, |value| key_of(value) == key)?;
        Some((index, position))
    }

    /// Adds a bucket, and moves to it what belongs there from the one that it is split from.
    fn split(&mut self, key_of: impl Fn(u32) -> Fingerprint) {
        let count = self.buckets.len();
        let mut upper = Bucket::default();
        if count > 0 {
            let bit = 1 << count.ilog2();
            let multiplier = self.multiplier;
            upper = self.change(count - bit, |bucket| {
                bucket.split(|value| Hash::of(key_of(value), multiplier).bits as usize & bit != 0)
            });
        }
        if count == self.buckets.capacity() {
            self.buckets.reserve_exact((count / 8).max(MIN_GROWTH));
        }
        self.bucket_bytes += upper.heap_bytes();
        self.buckets.push(upper);
    }

    /// Removes the last bucket, and moves what it holds to the one that it was split from.
    fn join(&mut self) {
        let Some(last) = self.buckets.pop() else { return };
        self.bucket_bytes -= last.heap_bytes();
        let count = self.buckets.len();
        if count > 0 {
            self.change(count - (1 << count.ilog2()), |bucket| bucket.append(&last));
        }
        let enough = count + (count / 8).max(MIN_GROWTH);
        if count == 0 || self.buckets.capacity() > enough + enough / 8 {
            self.buckets.shrink_to(if count == 0 { 0 } else { enough });
        }
    }

    /// Changes a bucket, keeping count of its bytes.
    fn change<R>(&mut self, index: usize, change: impl FnOnce(&mut Bucket) -> R) -> R {
        let bucket = &mut self.buckets[index];
        self.bucket_bytes -= bucket.heap_bytes();
        let result = change(bucket);
        self.bucket_bytes += bucket.heap_bytes();
        result
    }
}
