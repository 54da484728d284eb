//! Counting pages by content.
//!
//! A census takes 16 bytes a page that is read, and about 40 a content.

use std::collections::HashMap;

use pagefold_dedup::PAGE_SIZE;
use serde::Serialize;

use super::extents::{self, Lengths};
use super::image::{Image, ImageError};
use super::keys::{Key, Keys, Pages, ZERO};
use super::progress::Progress;

/// All images together and each.
#[derive(Debug)]
pub(super) struct Census {
    pub(super) images: Vec<ImageCensus>,
    pub(super) total: TotalCensus,
    /// Contents that more than one page has: the slots that sharing them needs.
    pub(super) slots: u64,
    /// What the pages held when they were counted, for each image.
    pub(super) keys: Vec<Keys>,
}

/// One image.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct ImageCensus {
    /// The file.
    pub(super) path: String,
    /// Its pages.
    pub(super) pages: u64,
    /// Those of zeroes.
    pub(super) zero_pages: u64,
    /// Those of them that the file does not hold: folding neither loads nor saves them.
    pub(super) hole_pages: u64,
    /// Non-zero pages whose content another page has too, in whatever image.
    pub(super) shareable_pages: u64,
    /// Non-zero pages equal to the page at the same offset in the first image; `None` for that.
    pub(super) same_position_pages: Option<u64>,
    /// Runs of shareable pages on consecutive slots.
    pub(super) extents: u64,
    /// Mappings that the image takes when all of them are made.
    pub(super) vmas_needed: u64,
}

/// All images together.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct TotalCensus {
    /// Pages.
    pub(super) pages: u64,
    /// Pages of zeroes.
    pub(super) zero_pages: u64,
    /// Those of them that no file holds.
    pub(super) hole_pages: u64,
    /// Different contents, zeroes not counted.
    pub(super) distinct_pages: u64,
    /// Non-zero pages whose content another page has too.
    pub(super) shareable_pages: u64,
    /// Non-zero pages beyond the first of their content, and all zero pages that a file holds.
    pub(super) saveable_pages: u64,
    /// The same in bytes.
    pub(super) saveable_bytes: u64,
    /// Non-zero pages of the second and further images that equal the page at the same offset in
    /// the first.
    pub(super) same_position_pages: u64,
    /// Runs of shareable pages on consecutive slots, with slots in first-seen order.
    pub(super) extents: u64,
    /// How long they are.
    pub(super) extent_lengths: Lengths,
    /// Mappings that all images take when all extents are made.
    pub(super) vmas_needed: u64,
}

/// Reads every image once and counts.
pub(super) fn take(images: &[Image], progress: &Progress) -> Result<Census, ImageError> {
    let keys: Result<Vec<_>, _> = images.iter().map(|image| Keys::of(image, progress)).collect();
    let paths: Vec<String> =
        images.iter().map(|image| image.path().display().to_string()).collect();
    Ok(count(&paths, keys?))
}

fn count(paths: &[String], keys: Vec<Keys>) -> Census {
    let mut copies: HashMap<Key, u32> = HashMap::new();
    for key in keys.iter().flat_map(Keys::data).filter(|&key| key != ZERO) {
        let copies = copies.entry(key).or_default();
        *copies = copies.saturating_add(1);
    }
    let distinct_pages = copies.len() as u64;
    copies.retain(|_, copies| *copies > 1);
    let slots = number_slots(&keys, copies);

    let mut lengths = Lengths::default();
    let images: Vec<ImageCensus> = paths
        .iter()
        .zip(&keys)
        .enumerate()
        .map(|(index, (path, image))| {
            let slot = |key| slots.get(&key).copied();
            let found = image.pages().map(|pages| match pages {
                Pages::One(_, key) => slot(key),
                Pages::Hole(_) => None,
            });
            let runs = extents::runs(found, &mut lengths);
            let hole_pages = u64::from(image.hole_page_count());
            ImageCensus {
                path: path.clone(),
                pages: u64::from(image.page_count()),
                zero_pages: hole_pages + image.data().filter(|&key| key == ZERO).count() as u64,
                hole_pages,
                shareable_pages: image.data().filter_map(slot).count() as u64,
                same_position_pages: (index > 0).then(|| same_position(&keys[0], image)),
                extents: runs.extents,
                vmas_needed: runs.extents + runs.gaps,
            }
        })
        .collect();

    let sum = |value: fn(&ImageCensus) -> u64| images.iter().map(value).sum::<u64>();
    let pages = sum(|image| image.pages);
    let hole_pages = sum(|image| image.hole_pages);
    let saveable_pages = pages - hole_pages - distinct_pages;
    let total = TotalCensus {
        pages,
        zero_pages: sum(|image| image.zero_pages),
        hole_pages,
        distinct_pages,
        shareable_pages: sum(|image| image.shareable_pages),
        saveable_pages,
        saveable_bytes: saveable_pages * PAGE_SIZE as u64,
        same_position_pages: sum(|image| image.same_position_pages.unwrap_or(0)),
        extents: sum(|image| image.extents),
        extent_lengths: lengths,
        vmas_needed: sum(|image| image.vmas_needed),
    };
    Census { slots: slots.len() as u64, images, total, keys }
}

/// Numbers the contents in `copies` in the order in which the images show them: neighbours in the
/// first image to have them become neighbours in the store.
fn number_slots(keys: &[Keys], copies: HashMap<Key, u32>) -> HashMap<Key, u32> {
    const UNNUMBERED: u32 = u32::MAX;
    let mut slots = copies;
    for slot in slots.values_mut() {
        *slot = UNNUMBERED;
    }
    let mut next = 0;
    for key in keys.iter().flat_map(Keys::data) {
        if let Some(slot) = slots.get_mut(&key)
            && *slot == UNNUMBERED
        {
            *slot = next;
            next += 1;
        }
    }
    slots
}

fn same_position(first: &Keys, image: &Keys) -> u64 {
    let is_same = |pages: &Pages| match *pages {
        Pages::One(page, key) => key != ZERO && first.get(page) == key,
        Pages::Hole(_) => false,
    };
    image.pages().filter(is_same).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A census of images given as letters: `.` is a page of zeroes.
    fn census(images: &[&str]) -> Census {
        let keys = images
            .iter()
            .map(|image| image.chars().map(|c| if c == '.' { ZERO } else { u128::from(c) }))
            .map(|keys| Keys::dense(keys.collect()))
            .collect();
        let paths: Vec<String> = images.iter().map(|&image| image.to_owned()).collect();
        count(&paths, keys)
    }

    #[test]
    fn every_page_beyond_the_first_of_its_content_and_every_zero_page_can_be_saved() {
        let total = census(&["abca..", "xabz."]).total;
        assert_eq!((total.pages, total.zero_pages, total.distinct_pages), (11, 3, 5));
        // a twice more, b once more, three zeroes.
        assert_eq!(total.saveable_pages, 6);
        assert_eq!(total.saveable_bytes, 6 * 4096);
        assert_eq!(total.shareable_pages, 5);
    }

    #[test]
    fn images_with_nothing_in_common_need_one_mapping_each() {
        let census = census(&["abc", "def"]);
        assert_eq!((census.total.saveable_pages, census.total.extents), (0, 0));
        assert_eq!((census.total.vmas_needed, census.slots), (2, 0));
    }

    #[test]
    fn extents_follow_the_order_in_which_contents_are_first_seen() {
        // Slots: a0 b1 c2 d3. The first image is "abcd" in one run, less the private p.
        let census = census(&["abpcd", "cdab", "badc"]);
        assert_eq!(census.slots, 4);
        let extents: Vec<u64> = census.images.iter().map(|image| image.extents).collect();
        assert_eq!(extents, [2, 2, 4]);
        assert_eq!(census.images[0].vmas_needed, 3);
        assert_eq!(census.images[2].vmas_needed, 4);
        assert_eq!(census.total.extent_lengths.max, 2);
    }

    #[test]
    fn a_content_repeated_in_place_breaks_the_run() {
        let census = census(&["aaa"]);
        assert_eq!((census.total.extents, census.slots), (3, 1));
        assert_eq!(census.total.saveable_pages, 2);
    }

    #[test]
    fn same_positions_are_those_of_the_first_image() {
        let census = census(&["ab.d", "aX.d", "ba.", "XXXXd"]);
        let same: Vec<Option<u64>> =
            census.images.iter().map(|image| image.same_position_pages).collect();
        assert_eq!(same, [None, Some(2), Some(0), Some(0)]);
        assert_eq!(census.total.same_position_pages, 2);
    }
}
