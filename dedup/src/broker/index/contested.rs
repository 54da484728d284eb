//! Different contents that have one fingerprint.
//!
//! XXH3 keeps nobody from making such contents who knows the domain's secret. The first of them that
//! had a node under the fingerprint would keep all others from ever being shared. So the key under
//! which a page was found to differ from the slot that was proposed for it is noted with the page; if
//! the page is offered with the same fingerprint again, that fingerprint is *contested*: what stands
//! under it is moved to the key that its BLAKE3 gives, and pages with it are asked for theirs.
//!
//! Nor can anybody who knows the secret find a page that has the first 64 bits of another one's
//! BLAKE3. Two of one's own are within reach, however. They are distinguished by the other 64 bits, or
//! by their bytes: the one that comes second is left alone until it changes.
//!
//! A fingerprint that is contested stays so while anything stands in the trees. What stands under a name cannot
//! be found by its fingerprint, which nothing remembers, so pages offered later would share nothing with it if
//! they were not asked for their names any more. Once both trees are empty, as after unmerging everything, or
//! when the last VM has left and the domain with it, nothing is lost by forgetting it.

use std::collections::HashSet;

use crate::fingerprint::Fingerprint;

/// Contested fingerprints that are kept one by one. Once there are more, all are taken for contested: nothing
/// less is shared, but each offer costs 1.8 µs more for its BLAKE3. A guest that does not know the secret, which
/// is drawn for each domain and never leaves the process, cannot bring that about, nor does chance: it takes as
/// many pairs that collide, and 2^40 different pages have about so many.
const MAX_CONTESTED: usize = 1 << 16;

/// The fingerprints that say nothing about whether pages are equal.
#[derive(Debug, Default)]
pub(in crate::broker) struct Contested {
    keys: HashSet<Fingerprint>,
    all: bool,
}

impl Contested {
    /// Whether pages with this key are asked for their names.
    pub(in crate::broker) fn contains(&self, key: Fingerprint) -> bool {
        self.all || self.keys.contains(&key)
    }

    /// Whether there are any.
    pub(in crate::broker) fn is_empty(&self) -> bool {
        !self.all && self.keys.is_empty()
    }

    pub(in crate::broker) fn heap_bytes(&self) -> usize {
        self.keys.capacity() * (size_of::<Fingerprint>() + 1)
    }

    /// Has pages with this key be asked for their names. O(1) amortized.
    pub(in crate::broker) fn insert(&mut self, key: Fingerprint) {
        if !self.all {
            self.keys.insert(key);
            if self.keys.len() > MAX_CONTESTED {
                *self = Self { keys: HashSet::new(), all: true };
            }
        }
    }
}
