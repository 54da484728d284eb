//! What each page of an image holds, by key.
//!
//! A content is known by the first 128 bits of its BLAKE3 hash: enough to count, and to see that a
//! page has changed, as two different pages with one key are not to be met (and no page is mapped by
//! it: folding compares bytes).

use std::ops::Range;

use pagefold_dedup::PAGE_SIZE;

use super::image::{Image, ImageError, Part};
use super::progress::Progress;

/// A content's key; that of a page of zeroes is 0.
pub(super) type Key = u128;

/// The key of a page of zeroes.
pub(super) const ZERO: Key = 0;

/// The keys of one image: 16 bytes for each page that the file holds, and nothing for holes.
#[derive(Debug, Default)]
pub(super) struct Keys {
    page_count: u32,
    data_page_count: u32,
    /// Runs of pages that the file holds, ascending.
    runs: Vec<(u32, Vec<Key>)>,
}

/// Pages in order, with what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pages {
    /// The next page, and its key.
    One(u32, Key),
    /// So many pages that the file does not hold.
    Hole(u32),
}

impl Keys {
    /// Reads an image.
    pub(super) fn of(image: &Image, progress: &Progress) -> Result<Self, ImageError> {
        let runs = image.map_parts(progress, |part| match part {
            Part::Data(first, bytes) => {
                Some((first, bytes.chunks_exact(PAGE_SIZE).map(key_of).collect::<Vec<_>>()))
            }
            Part::Hole(..) => None,
        })?;
        image.check_length()?;
        Ok(Self::new(image.page_count(), runs.into_iter().flatten().collect()))
    }

    fn new(page_count: u32, runs: Vec<(u32, Vec<Key>)>) -> Self {
        let data_page_count = runs.iter().map(|(_, keys)| len(keys)).sum();
        Self { page_count, data_page_count, runs }
    }

    /// How many pages there are.
    pub(super) fn page_count(&self) -> u32 {
        self.page_count
    }

    /// How many of them the file does not hold.
    pub(super) fn hole_page_count(&self) -> u32 {
        self.page_count - self.data_page_count
    }

    /// The key of a page. O(log runs).
    pub(super) fn get(&self, page: u32) -> Key {
        let after = self.runs.partition_point(|(first, _)| *first <= page);
        let run = after.checked_sub(1).and_then(|index| self.runs.get(index));
        run.and_then(|(first, keys)| keys.get((page - first) as usize)).copied().unwrap_or(ZERO)
    }

    /// The first of some pages that does not hold zeroes. O(log runs + those of the pages that the file holds).
    pub(super) fn first_nonzero(&self, pages: Range<u32>) -> Option<u32> {
        let before = self.runs.partition_point(|(first, keys)| first + len(keys) <= pages.start);
        let runs = self.runs[before..].iter().take_while(|(first, _)| *first < pages.end);
        let held = runs.flat_map(|(first, keys)| (*first..).zip(keys));
        let mut nonzero = held.filter(|&(page, key)| pages.contains(&page) && *key != ZERO);
        nonzero.next().map(|(page, _)| page)
    }

    /// The keys of the pages that the file holds.
    pub(super) fn data(&self) -> impl Iterator<Item = Key> {
        self.runs.iter().flat_map(|(_, keys)| keys.iter().copied())
    }

    /// All pages.
    pub(super) fn pages(&self) -> impl Iterator<Item = Pages> {
        let ends = self.runs.iter().map(|(first, keys)| first + len(keys));
        let gaps = [0].into_iter().chain(ends);
        let starts = self.runs.iter().map(|(first, _)| *first).chain([self.page_count]);
        let holes = gaps.zip(starts).map(|(end, start)| start - end);
        let runs = self.runs.iter().map(Some).chain([None]);
        holes.zip(runs).flat_map(|(hole, run)| {
            let pages = run.into_iter().flat_map(|(first, keys)| {
                (*first..).zip(keys).map(|(page, &key)| Pages::One(page, key))
            });
            (hole > 0).then_some(Pages::Hole(hole)).into_iter().chain(pages)
        })
    }
}

/// How many pages a run has.
#[expect(clippy::cast_possible_truncation, reason = "an image has fewer, and no run has more")]
fn len(run: &[Key]) -> u32 {
    run.len() as u32
}

/// The key of a page with these bytes.
pub(super) fn key_of(page: &[u8]) -> Key {
    // Compared as a whole, which takes a tenth of the time that byte by byte takes.
    if page == [0; PAGE_SIZE] {
        return ZERO;
    }
    let mut bytes = [0; 16];
    blake3::Hasher::new().update(page).finalize_xof().fill(&mut bytes);
    Key::from_le_bytes(bytes)
}

#[cfg(test)]
impl Keys {
    /// Of an image without holes.
    pub(super) fn dense(keys: Vec<Key>) -> Self {
        Self::new(len(&keys), vec![(0, keys)])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_tell_pages_apart_and_zeroes_from_others() {
        let zero = [0; PAGE_SIZE];
        let mut one = zero;
        one[PAGE_SIZE - 1] = 1;
        let mut other = zero;
        other[0] = 1;
        assert_eq!(key_of(&zero), ZERO);
        let keys = [key_of(&zero), key_of(&one), key_of(&other)];
        let distinct: BTreeSet<Key> = keys.into_iter().collect();
        assert_eq!(distinct.len(), 3);
        assert_eq!(key_of(&one), key_of(&one.clone()));
    }

    #[test]
    fn an_image_that_became_shorter_is_refused_and_not_taken_for_holes() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), [7; 4 * PAGE_SIZE]).expect("written");
        let image = Image::open(file.path()).expect("an image");
        file.as_file().set_len(0).expect("a length");
        let error = Keys::of(&image, &Progress::hidden()).map(drop).expect_err("no keys");
        assert!(
            error.to_string().ends_with("had 16384 bytes, and 0 once its pages had been counted")
        );
        file.as_file().set_len(5 * PAGE_SIZE as u64).expect("a length");
        assert_eq!(Keys::of(&image, &Progress::hidden()).expect("keys").page_count(), 4);
    }

    #[test]
    fn holes_have_the_key_of_zeroes_and_take_no_room() {
        let keys = Keys::new(12, vec![(2, vec![7, 8]), (4, vec![9]), (10, vec![5])]);
        let found: Vec<Key> = (0..12).map(|page| keys.get(page)).collect();
        assert_eq!(found, [0, 0, 7, 8, 9, 0, 0, 0, 0, 0, 5, 0]);
        assert_eq!((keys.hole_page_count(), keys.data().count()), (8, 4));
        let nonzero = |pages| keys.first_nonzero(pages);
        assert_eq!([nonzero(0..12), nonzero(3..12), nonzero(5..12)], [Some(2), Some(3), Some(10)]);
        assert_eq!([nonzero(0..2), nonzero(5..10), nonzero(11..12)], [None; 3]);
        let pages: Vec<Pages> = keys.pages().collect();
        let (one, hole) = (Pages::One, Pages::Hole);
        assert_eq!(pages, [hole(2), one(2, 7), one(3, 8), one(4, 9), hole(5), one(10, 5), hole(1)]);
        assert_eq!(Keys::new(9, vec![(2, vec![0, 0, 7])]).first_nonzero(0..9), Some(4));
        assert_eq!(Keys::new(3, Vec::new()).pages().collect::<Vec<_>>(), [hole(3)]);
    }
}
