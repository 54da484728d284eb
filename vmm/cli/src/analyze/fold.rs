//! Folding images for real: each is the memory of a VM that does not run.

use std::io;
use std::iter;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, PAGE_SIZE, Unchanging, VmId,
};
use serde::Serialize;

use super::census::Census;
use super::image::{Image, ImageError, Part};
use super::keys::{Keys, ZERO, key_of};
use super::progress::Progress;
use crate::failure::{Advise, Failure};
use crate::process;

/// The images of one command trust each other.
const DOMAIN: &str = "images";

/// Memory that does not change settles in a few passes; this only ends a defect.
const SETTLE_LIMIT: Duration = Duration::from_hours(1);

/// What folding came to.
#[derive(Debug, Serialize)]
pub(super) struct Fold {
    /// Pages that are no longer held.
    pub(super) saved_pages: u64,
    /// The same in bytes.
    pub(super) saved_bytes: u64,
    /// Wall time of folding, loading and verification not counted.
    pub(super) elapsed_s: f64,
    /// Processor time of the same, all threads; `None` if the kernel did not report it.
    pub(super) cpu_s: Option<f64>,
    /// Passes made, those that found nothing more included.
    pub(super) passes: u64,
    /// Runs of pages on consecutive slots.
    pub(super) extents: u64,
    /// Mappings that the kernel holds for the images' memory.
    pub(super) vmas: u64,
    /// Whether every byte of every image reads as before.
    pub(super) verified: bool,
    /// The first byte that does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_difference: Option<Difference>,
    /// All counters.
    pub(super) dedup: DedupStats,
}

/// A byte of memory that is not the image's.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    /// The image.
    pub(super) path: PathBuf,
    /// Where in it.
    pub(super) offset_bytes: u64,
}

/// Loads, folds and verifies the images, whose pages are known since they were counted.
pub(super) fn fold(images: &[Image], census: &Census) -> Result<Fold, Failure> {
    let image_bytes = census.total.pages * PAGE_SIZE as u64;
    let memories = {
        let progress = Progress::new("loading", image_bytes);
        let load = |(image, keys)| load(image, keys, &progress);
        images.iter().zip(&census.keys).map(load).collect::<Result<Vec<_>, _>>()?
    };
    let mut engine = Engine::new(EngineConfig::default())
        .advise("cannot fold", "see what `pagefold doctor` says")?;
    for (number, memory) in (0..).zip(&memories) {
        let spec = AttachSpec {
            domain: DOMAIN.to_owned(),
            mode: DedupMode::On,
            memory: Arc::<AnonymousMemory>::clone(memory),
            changes: Box::new(Unchanging),
        };
        engine
            .attach(VmId(number), spec)
            .advise("cannot fold", "see what `pagefold doctor` says")?;
    }

    let (started, cpu_before) = (Instant::now(), process::cpu_time());
    let settled = engine.settle(SETTLE_LIMIT, Duration::ZERO);
    let elapsed = started.elapsed();
    let cpu =
        process::cpu_time().zip(cpu_before).map(|(after, before)| after.saturating_sub(before));

    if !settled.settled {
        return Err(Failure::new(
            format!("the images did not settle within {} passes", settled.passes),
            "run with RUST_LOG=info and see what the kernel refuses",
        ));
    }
    let dedup = engine.stats();
    let first_difference = {
        let progress = Progress::new("verifying", image_bytes);
        verify_all(images, &memories, &census.keys, &progress)?
    };
    Ok(Fold {
        saved_pages: dedup.saved_bytes / PAGE_SIZE as u64,
        saved_bytes: dedup.saved_bytes,
        elapsed_s: elapsed.as_secs_f64(),
        cpu_s: cpu.map(|cpu| cpu.as_secs_f64()),
        passes: settled.passes,
        extents: dedup.vms.iter().map(|vm| vm.extents).sum(),
        vmas: dedup.vms.iter().map(|vm| vm.vmas).sum(),
        verified: first_difference.is_none(),
        first_difference,
        dedup,
    })
}

fn load(image: &Image, keys: &Keys, progress: &Progress) -> Result<Arc<AnonymousMemory>, Failure> {
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

/// What to report of an image that is not what it was when its pages were counted.
fn changed(image: &Image, offset_bytes: u64) -> Failure {
    Failure::new(
        format!("{} changed at byte {offset_bytes} while it was analyzed", image.path().display()),
        "give an image that nobody writes to: of a VM that has ended, or a copy",
    )
}

fn no_memory(image: &Image, error: &io::Error) -> Failure {
    Failure::caused(
        format!("cannot get memory for {}", image.path().display()),
        error,
        "give fewer images at once, or leave out --fold for the census alone",
    )
}

fn verify_all(
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
                return Ok(Some(Difference { path: image.path().to_owned(), offset_bytes }));
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
enum Wrong {
    /// The memory.
    Memory(u64),
    /// The image.
    Image(u64),
}

/// The first byte of the memory that is wrong, or else the first of the image that has changed.
fn verify(
    image: &Image,
    memory: &AnonymousMemory,
    keys: &Keys,
    progress: &Progress,
) -> Result<Option<Wrong>, ImageError> {
    let touched = touched_pages(image, memory);
    let found = image.map_parts(progress, |part| match part {
        Part::Data(first, bytes) => {
            let pages = (first..).zip(bytes.chunks_exact(PAGE_SIZE));
            tell(pages.filter_map(|(page, bytes)| verify_page(page, bytes, memory, keys)))
        }
        Part::Hole(first, count) => {
            let pages = first..first + count;
            let verify = |page| verify_page(page, &[0; PAGE_SIZE], memory, keys);
            match keys.first_nonzero(pages.clone()) {
                // Most are nothing but holes, in memory as in the file: that is known without reading them.
                None => tell(common(&touched, pages).filter_map(verify)),
                Some(_) => tell(pages.filter_map(verify)),
            }
        }
    })?;
    Ok(tell(found.into_iter().flatten()))
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
fn tell(mut wrong: impl Iterator<Item = Wrong>) -> Option<Wrong> {
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
        // If the image is as it was, it shows the very byte; otherwise nobody knows it.
        let is_unchanged = key_of(image) == key;
        let at = difference.filter(|_| is_unchanged).unwrap_or(0);
        Some(Wrong::Memory((offset + at) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::census;

    /// Four pages a row: common, own, zero, and one that is common but elsewhere.
    fn image(number: u8) -> (tempfile::NamedTempFile, Vec<u8>) {
        let mut bytes = Vec::new();
        for row in 0..64_u8 {
            for fill in [[row, 1], [row, number + 10], [0, 0], [row ^ number, 2]] {
                bytes.extend_from_slice(&fill.repeat(PAGE_SIZE / 2));
            }
        }
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &bytes).expect("written");
        (file, bytes)
    }

    #[test]
    fn images_are_folded_to_the_last_page_and_read_as_before() {
        let files: Vec<_> = (0..3).map(image).collect();
        let images: Vec<Image> =
            files.iter().map(|(file, _)| Image::open(file.path()).expect("an image")).collect();
        let census = census::take(&images, &Progress::hidden()).expect("a census");
        let fold = fold(&images, &census).expect("a fold");
        assert!(fold.verified);
        assert_eq!(fold.saved_pages, census.total.saveable_pages);
        assert_eq!(fold.first_difference, None);
    }

    /// An image with its keys and its memory.
    fn loaded() -> (tempfile::NamedTempFile, Image, Keys, Arc<AnonymousMemory>) {
        let (file, _) = image(0);
        let image = Image::open(file.path()).expect("an image");
        let keys = Keys::of(&image, &Progress::hidden()).expect("keys");
        let memory = load(&image, &keys, &Progress::hidden()).expect("loaded");
        (file, image, keys, memory)
    }

    const AT: u64 = 5 * PAGE_SIZE as u64 + 7;

    fn write(file: &tempfile::NamedTempFile, offset: u64) {
        use std::os::unix::fs::FileExt;
        file.as_file().write_all_at(&[0xee], offset).expect("written");
    }

    #[test]
    fn a_wrong_byte_in_memory_is_found_whatever_the_image_does() {
        let (file, image, keys, memory) = loaded();
        let verify = || verify(&image, &memory, &keys, &Progress::hidden()).expect("read");
        assert_eq!(verify(), None);
        memory.write(5 * PAGE_SIZE + 7, &[0xee]);
        assert_eq!(verify(), Some(Wrong::Memory(AT)));
        // Now both are wrong, and alike; and another byte of the image comes before.
        write(&file, AT);
        write(&file, 9);
        assert_eq!(verify(), Some(Wrong::Memory(5 * PAGE_SIZE as u64)));
    }

    #[test]
    fn an_image_that_changes_after_loading_is_no_wrong_byte_in_memory() {
        let (file, image, keys, memory) = loaded();
        write(&file, AT);
        let found = verify(&image, &memory, &keys, &Progress::hidden()).expect("read");
        assert_eq!(found, Some(Wrong::Image(AT)));
        let (images, memories) = ([image], [memory]);
        let failure = verify_all(&images, &memories, &[keys], &Progress::hidden()).unwrap_err();
        let text = failure.to_string();
        let path = file.path().display().to_string();
        assert!(text.contains(&format!("{path} changed at byte {AT} while")), "{text}");
        assert_eq!(failure.code(), 1);
    }

    #[test]
    fn an_image_that_changes_between_counting_and_loading_is_named() {
        let (file, image, keys, _) = loaded();
        write(&file, AT);
        let text = load(&image, &keys, &Progress::hidden()).unwrap_err().to_string();
        assert!(text.contains(&format!("changed at byte {} while", AT - 7)), "{text}");
    }

    #[test]
    fn what_is_a_hole_in_memory_too_is_verified_without_being_read() {
        use std::os::unix::fs::FileExt;
        // A file system in memory, which has holes of single pages.
        let file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file");
        file.as_file().set_len((1 << 20) * PAGE_SIZE as u64).expect("a length");
        for page in [5, 1 << 19] {
            file.as_file().write_all_at(&[7; PAGE_SIZE], page * PAGE_SIZE as u64).expect("written");
        }
        let image = Image::open(file.path()).expect("an image");
        let keys = Keys::of(&image, &Progress::hidden()).expect("keys");
        let memory = load(&image, &keys, &Progress::hidden()).expect("loaded");
        let verify = || verify(&image, &memory, &keys, &Progress::hidden()).expect("read");
        assert_eq!(verify(), None);
        // Whatever is read is there from then on.
        assert_eq!(memory.touched_pages().expect("a page map"), [5..6, 1 << 19..(1 << 19) + 1]);
        // What has come to be there where nothing is to be is found.
        memory.write(77 * PAGE_SIZE + 3, &[0]);
        assert_eq!(verify(), None);
        memory.write(77 * PAGE_SIZE + 3, &[1]);
        assert_eq!(verify(), Some(Wrong::Memory(77 * PAGE_SIZE as u64 + 3)));
    }

    #[test]
    fn what_became_a_hole_of_the_image_is_a_change_and_must_be_in_memory_all_the_same() {
        let (file, image, keys, memory) = loaded();
        file.as_file().set_len(0).expect("a length");
        file.as_file().set_len(u64::from(image.page_count()) * PAGE_SIZE as u64).expect("a length");
        let verify = |memory| verify(&image, memory, &keys, &Progress::hidden()).expect("read");
        assert!(matches!(verify(&memory), Some(Wrong::Image(_))));
        // Nothing is there, and nothing must not pass for what was counted.
        let empty = AnonymousMemory::new(image.page_count()).expect("memory");
        assert!(matches!(verify(&empty), Some(Wrong::Memory(_))));
    }
}
