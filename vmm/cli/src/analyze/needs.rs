//! What an analysis takes, which is checked before anything is read.

use pagefold::limits::room::{Needs, lacking};
use pagefold::limits::{RoomError, Tree, memory};
use pagefold_dedup::{EngineConfig, PAGE_SIZE};

use super::image::Image;
use crate::failure::Failure;

/// Memory for a page that is read: its key, and its content among all others.
const CENSUS_BYTES_PER_PAGE: u64 = 80;

/// Memory for a page that is folded, whether the file holds it or not: in page tables and sets.
const FOLD_BYTES_PER_PAGE: u64 = 16;

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needed {
    image_count: usize,
    /// Pages of all images.
    pages: u64,
    /// Those of them that the files hold.
    data_pages: u64,
    is_folded: bool,
}

impl Needed {
    /// Refuses more images than can be open at once: checked before the first is opened.
    pub(super) fn check_count(image_count: usize) -> Result<(), Failure> {
        let needs = Needs::of_images(image_count, 0, 0);
        refuse(&needs, |error| matches!(error, RoomError::OpenFiles { .. }))
    }

    /// What these images take.
    pub(super) fn by(images: &[Image], is_folded: bool) -> Self {
        let sum =
            |count: fn(&Image) -> u32| images.iter().map(|image| u64::from(count(image))).sum();
        Self {
            image_count: images.len(),
            pages: sum(Image::page_count),
            data_pages: sum(Image::data_page_count),
            is_folded,
        }
    }

    /// Bytes that are gone through each time, holes among them.
    pub(super) fn image_bytes(&self) -> u64 {
        self.pages * PAGE_SIZE as u64
    }

    /// Refuses what would fail half way.
    pub(super) fn check_limits(&self) -> Result<(), Failure> {
        let needs = if self.is_folded {
            // Without /proc, which is what the engine's error will name.
            let store_bytes = EngineConfig::default().store_bytes().unwrap_or(0);
            Needs::of_images(self.image_count, self.image_bytes(), store_bytes)
        } else {
            Needs::of_images(self.image_count, 0, 0)
        };
        refuse(&needs, |_| true)
    }

    /// Refuses what would end in the kernel's killing us. Folding has every page there before the
    /// first is saved, and `slots` pages more: 0 as long as their number is unknown.
    pub(super) fn check_memory(&self, slots: u64) -> Result<(), Failure> {
        let needed_bytes = self.memory_bytes(slots);
        match memory::available(&Tree::real()) {
            Ok((limit, available_bytes)) if available_bytes < needed_bytes => Err(Failure::new(
                format!(
                    "{} takes {} MiB of memory, and {limit} leaves {} MiB",
                    if self.is_folded { "folding these images" } else { "counting these pages" },
                    needed_bytes >> 20,
                    available_bytes >> 20
                ),
                if self.is_folded {
                    "give fewer images at once, or leave out --fold for the census alone"
                } else {
                    "give fewer images at once"
                },
            )),
            _ => Ok(()),
        }
    }

    fn memory_bytes(&self, slots: u64) -> u64 {
        let census = self.data_pages * CENSUS_BYTES_PER_PAGE;
        let page_bytes = PAGE_SIZE as u64;
        let fold = (self.data_pages + slots) * page_bytes + self.pages * FOLD_BYTES_PER_PAGE;
        if self.is_folded { census + fold } else { census }
    }
}

/// Refuses what there is too little for, as far as that `matters`.
fn refuse(needs: &Needs, matters: impl Fn(&RoomError) -> bool) -> Result<(), Failure> {
    match lacking(&Tree::real(), needs).iter().find(|error| matters(error)) {
        Some(error) => Err(Failure::limited("cannot analyze the images", error)),
        None => Ok(()),
    }
}
