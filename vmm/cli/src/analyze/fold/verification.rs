//! Whether the memory of an image still reads as the image.

use std::iter;
use std::ops::Range;
use std::sync::Arc;

use pagefold_dedup::{AnonymousMemory, PAGE_SIZE};
use serde::Serialize;

use super::changed;
use crate::analyze::image::{Image, ImageError, Part};
use crate::analyze::keys::{Keys, ZERO, key_of};
use crate::analyze::progress::Progress;
use crate::failure::Failure;

/// A byte of memory that is not the image's.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(in crate::analyze) struct Difference {
    /// The image, readable whatever its name is made of.
    pub(in crate::analyze) path: String,
    /// Where in it.
    pub(in crate::analyze) offset_bytes: u64,
}

/// The first byte of any memory that is wrong; an error for an image that has changed instead.
pub(super) fn verify_all(
    images: &[Image],
    memories: &[Arc<AnonymousMemory>],
    keys: &[Keys],
    progress: &Progress,
) -> Result<Option<Difference>, Failure> {
    let mut change = None;
    for ((image, memory), keys) in images.iter().zip(memories).zip(keys) {
        let found = verify(image, memory, keys, progress)
            .map_err(|error| Failure::caused("cannot verify the images", &error, error.advice()))?;
        match found {
            // Whatever else there is: this is what must never be.
            Some(Wrong::Memory(offset_bytes)) => {
                let path = image.path().display().to_string();
                return Ok(Some(Difference { path, offset_bytes }));
            }
            Some(Wrong::Image(offset_bytes)) => {
                change.get_or_insert_with(|| changed(image, offset_bytes));
            }
            None => {}
        }
    }
    change.map_or(Ok(None), Err)
}

/// What is not as it was when the pages were counted, and from which byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The memory.
    Memory(u64),
    /// The image.
    Image(u64),
}

/// The first byte of the memory that is wrong, or else the first of the image that has changed.
pub(super) fn verify(
    image: &Image,
    memory: &AnonymousMemory,
    keys: &Keys,
    progress: &Progress,
) -> Result<Option<Wrong>, ImageError> {
    let touched = touched_pages(image, memory);
    let found = image.map_parts(progress, |part| match part {
        Part::Data(first, bytes) => {
            let pages = (first..).zip(bytes.chunks_exact(PAGE_SIZE));
            first_wrong(pages.filter_map(|(page, bytes)| verify_page(page, bytes, memory, keys)))
        }
        Part::Hole(first, count) => {
            let pages = first..first + count;
            let verify = |page| verify_page(page, &[0; PAGE_SIZE], memory, keys);
            match keys.first_nonzero(pages.clone()) {
                // Most are nothing but holes, in memory as in the file: that is known without reading them.
                None => first_wrong(common(&touched, pages).filter_map(verify)),
                Some(_) => first_wrong(pages.filter_map(verify)),
            }
        }
    })?;
    Ok(first_wrong(found.into_iter().flatten()))
}

/// The pages of an image's memory that may hold anything but zeroes: all of them, if the kernel does not report it.
fn touched_pages(image: &Image, memory: &AnonymousMemory) -> Vec<Range<u32>> {
    memory.touched_pages().unwrap_or_else(|error| {
        log::info!("every page of {} is verified: {error}", image.path().display());
        iter::once(0..image.page_count()).collect()
    })
}

/// Those of `pages` that are in one of some disjoint ascending ranges. O(log ranges + what there is).
fn common(ranges: &[Range<u32>], pages: Range<u32>) -> impl Iterator<Item = u32> {
    let before = ranges.partition_point(|range| range.end <= pages.start);
    let ranges = ranges[before..].iter().take_while(move |range| range.start < pages.end);
    ranges.flat_map(move |range| range.start.max(pages.start)..range.end.min(pages.end))
}

/// What to report of all that is wrong, in order.
fn first_wrong(mut wrong: impl Iterator<Item = Wrong>) -> Option<Wrong> {
    let first = wrong.next()?;
    let is_memory = |wrong: &Wrong| matches!(wrong, Wrong::Memory(_));
    if is_memory(&first) { Some(first) } else { Some(wrong.find(is_memory).unwrap_or(first)) }
}

/// Compares a page of the memory with what it held when it was counted, and with the image's bytes.
fn verify_page(page: u32, image: &[u8], memory: &AnonymousMemory, keys: &Keys) -> Option<Wrong> {
    let mut bytes = [0; PAGE_SIZE];
    let offset = page as usize * PAGE_SIZE;
    memory.read(offset, &mut bytes);
    let key = keys.get(page);
    // Most pages by far, at a comparison each.
    if key == ZERO && bytes == [0; PAGE_SIZE] && image == bytes {
        return None;
    }
    let difference = (image != bytes)
        .then(|| image.iter().zip(&bytes).position(|(want, got)| want != got))
        .flatten();
    if key_of(&bytes) == key {
        difference.map(|at| Wrong::Image((offset + at) as u64))
    } else {
        // If the image is as it was, it shows the very byte; otherwise that cannot be determined.
        let is_unchanged = key_of(image) == key;
        let at = difference.filter(|_| is_unchanged).unwrap_or(0);
        Some(Wrong::Memory((offset + at) as u64))
    }
}
