//! The bytes each page must hold.
//!
//! A page is 512 little-endian words. The first two are one-to-one images of what the page is, so
//! that for one seed two contents are equal only if they are the same content; the others follow
//! from them, one 64-by-64-bit multiplication each (as in wyrand), so that no part of a page looks
//! like a part of another.

use crate::placement::{PageKind, PageTag};
use crate::rng::scramble;

/// Words in a page.
pub const PAGE_WORDS: usize = 512;
/// Words that encode which content it is.
const HEAD_WORDS: usize = 2;

/// A page, as the guest writes and verifies it.
pub type PageWords = [u64; PAGE_WORDS];

/// What sort of content a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentKind {
    /// The same in every VM of the group.
    Common,
    /// Found nowhere else; a new version has other bytes.
    Own,
    /// Zeroes.
    Zero,
    /// What a common or zero page holds between a write and the write back; found nowhere else.
    Scratch,
}

impl ContentKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Common, Self::Own, Self::Zero, Self::Scratch];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Common => "common",
            Self::Own => "own",
            Self::Zero => "zero",
            Self::Scratch => "scratch",
        }
    }

    /// The kind with that name in reports.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What one page must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    kind: ContentKind,
    first: u64,
    second: u64,
}

/// The first word that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Index of the word.
    pub word: usize,
    /// What it must be.
    pub want: u64,
    /// What it is.
    pub got: u64,
}

impl Mismatch {
    /// The first wrong byte: its offset in the page, what it must be, what it is.
    pub fn byte(&self) -> (u16, u8, u8) {
        let at = ((self.want ^ self.got).trailing_zeros() / 8) as usize;
        let at = at.min(7);
        let offset = u16::try_from(self.word % PAGE_WORDS * 8 + at).unwrap_or(0);
        (offset, self.want.to_le_bytes()[at], self.got.to_le_bytes()[at])
    }
}

impl Content {
    /// What the page `tag` of VM `vm_number` holds after `version` rewrites.
    ///
    /// Common and zero pages are at rest in even versions and hold scratch content in odd ones.
    /// Own pages hold other bytes in each version.
    pub const fn of(seed: u64, vm_number: u32, tag: PageTag, version: u32) -> Self {
        let kind = match (tag.kind(), version % 2) {
            (PageKind::Own, _) => ContentKind::Own,
            (_, 1) => ContentKind::Scratch,
            (PageKind::Common, _) => ContentKind::Common,
            (PageKind::Zero, _) => ContentKind::Zero,
        };
        let (version, group) = match kind {
            ContentKind::Common | ContentKind::Zero => (0, 0),
            // One more than the number, so that no VM is mistaken for the group.
            ContentKind::Own | ContentKind::Scratch => (version, vm_number as u64 + 1),
        };
        let what = (tag.to_bits() as u64) << 32 | version as u64;
        Self {
            kind,
            first: scramble(scramble(seed) ^ what),
            second: scramble(scramble(!seed) ^ group),
        }
    }

    /// What sort of content it is.
    pub const fn kind(&self) -> ContentKind {
        self.kind
    }

    /// Writes the content over a page.
    #[inline]
    pub fn fill(&self, page: &mut PageWords) {
        if self.kind == ContentKind::Zero {
            page.fill(0);
            return;
        }
        let mut words = self.words();
        page[..HEAD_WORDS].copy_from_slice(&self.head());
        for word in &mut page[HEAD_WORDS..] {
            *word = words.next_word();
        }
    }

    /// Compares a page with the content, word by word.
    ///
    /// # Errors
    /// The first word that is wrong.
    #[inline]
    pub fn verify(&self, page: &PageWords) -> Result<(), Mismatch> {
        const BLOCK_WORDS: usize = 15;
        const { assert!((PAGE_WORDS - HEAD_WORDS).is_multiple_of(BLOCK_WORDS)) };

        compare(0, &page[..HEAD_WORDS], &self.head())?;
        let mut words = self.words();
        let is_zero = self.kind == ContentKind::Zero;
        let mut at = HEAD_WORDS;
        for got in page[HEAD_WORDS..].chunks_exact(BLOCK_WORDS) {
            let mut want = [0; BLOCK_WORDS];
            if !is_zero {
                for word in &mut want {
                    *word = words.next_word();
                }
            }
            compare(at, got, &want)?;
            at += BLOCK_WORDS;
        }
        Ok(())
    }

    /// What the word at `index` must be; slow, for tests and messages.
    pub fn word(&self, index: usize) -> u64 {
        if let Some(word) = self.head().get(index) {
            return *word;
        }
        if self.kind == ContentKind::Zero {
            return 0;
        }
        let mut words = self.words();
        for _ in HEAD_WORDS..index {
            words.next_word();
        }
        words.next_word()
    }

    fn head(&self) -> [u64; HEAD_WORDS] {
        if self.kind == ContentKind::Zero { [0; HEAD_WORDS] } else { [self.first, self.second] }
    }

    fn words(&self) -> Words {
        Words { state: self.first ^ self.second.rotate_left(32) }
    }
}

/// Compares words of a page, the first of them at index `at`, with what they must be.
#[inline]
fn compare(at: usize, got: &[u64], want: &[u64]) -> Result<(), Mismatch> {
    let differences = got.iter().zip(want).fold(0, |all, (got, want)| all | (got ^ want));
    if differences == 0 { Ok(()) } else { Err(first_mismatch(at, got, want)) }
}

#[cold]
fn first_mismatch(at: usize, got: &[u64], want: &[u64]) -> Mismatch {
    let first = got.iter().zip(want).position(|(got, want)| got != want).unwrap_or(0);
    Mismatch { word: at + first, want: want[first], got: got[first] }
}

/// The words after the head.
struct Words {
    state: u64,
}

impl Words {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "both halves of a product")]
    fn next_word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0xa076_1d64_78bd_642f);
        let product = u128::from(self.state) * u128::from(self.state ^ 0xe703_7ed1_a0b4_28db);
        (product >> 64) as u64 ^ product as u64
    }
}

#[cfg(test)]
mod tests;
