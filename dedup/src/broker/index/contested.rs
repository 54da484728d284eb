//! Different contents that have one fingerprint.
//!
//! Who has the domain's secret can make such contents: XXH3 is not collision-resistant. The first of them under a
//! fingerprint would prevent all others from being shared. So the key under which a page was found to differ from the
//! slot that was proposed for it is noted in its item (`RmapItem::Collided`). If the page is offered with the same
//! fingerprint again, that fingerprint is *contested*: what is under it is moved to the key of its identity (BLAKE3),
//! and pages that are offered with it are to be offered by theirs.
//!
//! Even with the secret nobody can find a page that has the first 64 bits of another one's identity. To find two
//! pages of one's own that have 64 bits in common is possible, however. They are distinguished by the other 64 bits,
//! or by their bytes: the second one is not shared until it changes.
//!
//! A fingerprint stays contested while anything is in the trees. What is under the key of its identity cannot
//! be found by its fingerprint, which is not kept, so pages offered later would not share it if they were not offered
//! by their identities any more. Once both trees are empty, as after unmerging everything, or when the last VM has
//! left and the domain with it, contested fingerprints can be forgotten.

use std::collections::HashSet;

use crate::fingerprint::Fingerprint;

/// Contested fingerprints that are kept one by one. Once there are more, all are taken for contested: nothing
/// less is shared, but each offer costs 1.8 µs more for its BLAKE3. A guest that does not have the secret, which
/// is drawn for each domain and never leaves the process, cannot bring that about, nor does chance: it takes as
/// many pairs that collide, and 2^40 different pages have about so many.
const MAX_CONTESTED: usize = 1 << 16;

/// The fingerprints that pages of different contents have.
#[derive(Debug, Default)]
pub(in crate::broker) struct Contested {
    keys: HashSet<Fingerprint>,
    all: bool,
}

impl Contested {
    /// Whether pages with this key are to be offered by their identities.
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

    /// Adds a key. O(1) amortized.
    pub(in crate::broker) fn insert(&mut self, key: Fingerprint) {
        if !self.all {
            self.keys.insert(key);
            if self.keys.len() > MAX_CONTESTED {
                *self = Self { keys: HashSet::new(), all: true };
            }
        }
    }
}
