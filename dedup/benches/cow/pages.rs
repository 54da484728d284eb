//! The memory that is written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pagefold_dedup::{AnonymousMemory, PAGE_SIZE};

use crate::sys;

pub(crate) const COUNT: u32 = 4000;

/// Of two equal pages each, where they are paired.
pub(crate) const PAIRS: u32 = COUNT / 2;

/// Where the benchmark writes into a page: behind what tells its content from others.
const WORD_OFFSET: usize = 8;

/// Fresh memory of [`COUNT`] pages, none of them huge.
pub(crate) struct Pages {
    pub(crate) memory: Arc<AnonymousMemory>,
    content: Option<fn(u32) -> u32>,
}

impl Pages {
    /// Pages that are not there.
    pub(crate) fn absent() -> Self {
        let memory = AnonymousMemory::new(COUNT).unwrap();
        sys::forbid_huge_pages(&memory).unwrap();
        Self { memory: Arc::new(memory), content: None }
    }

    /// Pages that are there, each with the content that `content` numbers.
    pub(crate) fn filled(content: fn(u32) -> u32) -> Self {
        let pages = Self { content: Some(content), ..Self::absent() };
        for page in 0..COUNT {
            pages.memory.write(offset_bytes(page), &pages.expected(page));
        }
        pages
    }

    /// Reads a byte of each page, which maps it.
    pub(crate) fn read_all(&self) {
        for page in 0..COUNT {
            self.memory.read(offset_bytes(page), &mut [0]);
        }
    }

    /// Writes a word to each page, another one to each, and returns the time that took. The bytes
    /// are verified afterwards.
    pub(crate) fn write_all(&self) -> Duration {
        let began = Instant::now();
        for page in 0..COUNT {
            self.memory.write(offset_bytes(page) + WORD_OFFSET, &word(page));
        }
        let time = began.elapsed();
        let mut bytes = [0; PAGE_SIZE];
        for page in 0..COUNT {
            self.memory.read(offset_bytes(page), &mut bytes);
            let mut expected = self.expected(page);
            expected[WORD_OFFSET..][..size_of::<u32>()].copy_from_slice(&word(page));
            assert!(bytes == expected, "page {page} does not hold what was written");
        }
        time
    }

    /// A page before it is written.
    fn expected(&self, page: u32) -> [u8; PAGE_SIZE] {
        let Some(content) = self.content else {
            return [0; PAGE_SIZE];
        };
        let mut bytes = [0xa5; PAGE_SIZE];
        bytes[..size_of::<u32>()].copy_from_slice(&content(page).to_le_bytes());
        bytes
    }
}

fn offset_bytes(page: u32) -> usize {
    page as usize * PAGE_SIZE
}

fn word(page: u32) -> [u8; size_of::<u32>()] {
    page.to_le_bytes()
}
