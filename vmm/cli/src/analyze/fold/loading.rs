//! An image's pages into memory.

use std::io;
use std::sync::Arc;

use pagefold_dedup::{AnonymousMemory, PAGE_SIZE};

use super::changed;
use crate::analyze::image::{Image, Part};
use crate::analyze::keys::{Keys, key_of};
use crate::analyze::progress::Progress;
use crate::failure::Failure;

/// New memory with the pages of `image`, compared with `keys` on the way.
pub(super) fn load(
    image: &Image,
    keys: &Keys,
    progress: &Progress,
) -> Result<Arc<AnonymousMemory>, Failure> {
    let memory =
        AnonymousMemory::new(image.page_count()).map_err(|error| no_memory(image, &error))?;
    // Pages of zeroes are written too: a VM that has written zeroes holds the page. It does not hold
    // what is a hole.
    let changes = image.map_parts(progress, |part| match part {
        Part::Data(first, bytes) => {
            memory.write(first as usize * PAGE_SIZE, bytes);
            let mut pages = (first..).zip(bytes.chunks_exact(PAGE_SIZE));
            pages.find(|&(page, bytes)| key_of(bytes) != keys.get(page)).map(|(page, _)| page)
        }
        Part::Hole(first, count) => keys.first_nonzero(first..first + count),
    });
    let changes = changes
        .map_err(|error| Failure::caused("cannot load the images", &error, error.advice()))?;
    match changes.into_iter().flatten().next() {
        Some(page) => Err(changed(image, u64::from(page) * PAGE_SIZE as u64)),
        None => Ok(Arc::new(memory)),
    }
}

fn no_memory(image: &Image, error: &io::Error) -> Failure {
    Failure::caused(
        format!("cannot get memory for {}", image.path().display()),
        error,
        "give fewer images at once, or leave out --fold for the census alone",
    )
}
