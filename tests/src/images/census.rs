//! What could be saved of a set of images.

use std::collections::HashSet;

use pagefold_dedup::PAGE_SIZE;

use super::Image;

/// Pages of a set of images, counted by their bytes, not by hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// All pages.
    pub pages: u64,
    /// Those of zeroes.
    pub zero_pages: u64,
    /// Different contents among the others.
    pub distinct_pages: u64,
}

impl Census {
    /// Counts the pages of `images`. O(bytes).
    pub fn of(images: &[Image]) -> Self {
        let mut census = Self::default();
        let mut distinct = HashSet::new();
        for page in images.iter().flat_map(Image::pages) {
            census.pages += 1;
            if *page == [0; PAGE_SIZE] {
                census.zero_pages += 1;
            } else {
                distinct.insert(page);
            }
        }
        census.distinct_pages = distinct.len() as u64;
        census
    }

    /// Pages that nobody needs: every zero page, and every page beyond the first of its content.
    pub fn saveable_pages(&self) -> u64 {
        self.pages - self.distinct_pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_pages_and_twins_are_saveable() {
        let page = |byte: u8| [byte; PAGE_SIZE];
        let image =
            |pages: &[[u8; PAGE_SIZE]]| Image { name: String::new(), bytes: pages.concat() };
        let images = [image(&[page(0), page(1), page(1)]), image(&[page(1), page(0), page(2)])];
        let census = Census::of(&images);
        assert_eq!(census, Census { pages: 6, zero_pages: 2, distinct_pages: 2 });
        assert_eq!(census.saveable_pages(), 4);
    }
}
