//! Two hashes of a page: one to find it, one to identify it.
//!
//! The fast one, XXH3 with a secret of the domain's own, is the search key of both trees: it only
//! ever *proposes* a merge, and the bytes decide. 64 bits of it are kept, because that is what an
//! rmap item has room for, and because a chance collision costs one comparison of two pages and
//! happens about once in 2^64 / n lookups. The secret keeps a guest from making collisions.
//!
//! The slow one, BLAKE3 keyed by the domain, is a stable page's identity beyond this process.

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::PAGE_SIZE;
use crate::bytes::{deserialize_array, serialize_array};

/// Bytes of XXH3's secret.
const SECRET_BYTES: usize = 192;

/// A page's search key within its domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub u64);

/// Bytes of BLAKE3's output that identify a page. Without the key nobody can search for a collision, and
/// among the 2^32 pages of a full index one is there by chance in 1 of 2^64.
const IDENTITY_BYTES: usize = 16;

/// The identity of a page's bytes: the first 128 bits of BLAKE3 of its bytes, keyed by its domain.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(pub [u8; IDENTITY_BYTES]);

impl Identity {
    /// That of no bytes yet.
    pub(crate) const NONE: Self = Self([0; IDENTITY_BYTES]);

    /// The search key of pages whose fingerprints do not distinguish them: its first half.
    pub(crate) fn key(self) -> Fingerprint {
        let ([half, _], _) = self.0.as_chunks() else { unreachable!("it has two halves") };
        Fingerprint(u64::from_le_bytes(*half))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Pages whose identities a thread computes before it takes others: some 20 µs.
pub(crate) const IDENTITY_PART: usize = 32;

/// A domain's keys, drawn from the kernel's random source and never shown to a guest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    #[serde(serialize_with = "serialize_array", deserialize_with = "deserialize_array")]
    fast: [u8; SECRET_BYTES],
    identity: [u8; blake3::KEY_LEN],
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Draws new keys.
    ///
    /// # Errors
    ///
    /// When the kernel has no randomness to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut secret = Self { fast: [0; SECRET_BYTES], identity: [0; blake3::KEY_LEN] };
        getrandom::fill(&mut secret.fast)?;
        getrandom::fill(&mut secret.identity)?;
        Ok(secret)
    }

    /// The search key of a page. About 0.2 µs.
    pub fn fingerprint(&self, page: &[u8; PAGE_SIZE]) -> Fingerprint {
        match XxHash3_64::oneshot_with_secret(&self.fast, page) {
            Ok(hash) => Fingerprint(hash),
            Err(_) => unreachable!("the secret has the length that XXH3 asks for"),
        }
    }

    /// A page that has the same fingerprint as that of any other number, and other bytes. Words whose
    /// low half is the secret's are multiplied by 0: only the sum of the two that are set counts.
    #[cfg(test)]
    pub(crate) fn colliding_page(&self, number: u32) -> [u8; PAGE_SIZE] {
        const STRIPE_BYTES: usize = 64;
        const SECRET_STEP: usize = 8;
        let mut page = [0xa5; PAGE_SIZE];
        for (stripe, high) in [number, u32::MAX - number].into_iter().enumerate() {
            let (at, key) = (stripe * STRIPE_BYTES, stripe * SECRET_STEP);
            page[at..at + 4].copy_from_slice(&self.fast[key..key + 4]);
            page[at + 4..at + 8].copy_from_slice(&high.to_le_bytes());
        }
        page
    }

    /// The identity of a page. About 1.8 µs.
    pub fn identity(&self, page: &[u8; PAGE_SIZE]) -> Identity {
        let mut identity = Identity::NONE;
        let mut output = blake3::Hasher::new_keyed(&self.identity).update(page).finalize_xof();
        output.fill(&mut identity.0);
        identity
    }
}

/// Whether every byte of the page is zero.
pub(crate) fn is_zero(page: &[u8; PAGE_SIZE]) -> bool {
    // A block at a time: most pages that are not zero show it in their first.
    page.chunks_exact(256).all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_makes_a_page_not_zero() {
        let mut page = [0; PAGE_SIZE];
        assert!(is_zero(&page));
        for offset in [0, 1, 255, 256, 4095] {
            page[offset] = 1;
            assert!(!is_zero(&page), "offset {offset}");
            page[offset] = 0;
        }
    }

    #[test]
    fn whoever_knows_the_secret_can_make_pages_of_one_fingerprint_but_not_of_one_identity() {
        let secret = Secret::random().unwrap();
        let [one, other] = [1, 2].map(|number| secret.colliding_page(number));
        assert_eq!(secret.fingerprint(&one), secret.fingerprint(&other));
        assert_ne!(secret.identity(&one).key(), secret.identity(&other).key());
    }

    #[test]
    fn fingerprints_depend_on_the_bytes_and_the_secret() {
        let (one, other) = (Secret::random().unwrap(), Secret::random().unwrap());
        let (zeroes, mut page) = ([0; PAGE_SIZE], [0; PAGE_SIZE]);
        page[4095] = 1;
        assert_eq!(one.fingerprint(&zeroes), one.fingerprint(&zeroes));
        assert_ne!(one.fingerprint(&zeroes), one.fingerprint(&page));
        assert_ne!(one.fingerprint(&zeroes), other.fingerprint(&zeroes));
        assert_ne!(one.identity(&zeroes), one.identity(&page));
        assert_ne!(one.identity(&zeroes), other.identity(&zeroes));
    }
}
