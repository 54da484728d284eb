//! Folding images for real: each is the memory of a VM that does not run.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagefold::limits::{Tree, memory};
use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, PAGE_SIZE, Unchanging, VmId,
};
use serde::Serialize;

use super::census::Census;
use super::image::{Image, ImageError};
use crate::cli::failure::{Advise, Failure};
use crate::cli::process;

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
    /// Processor time of the same, all threads; `None` if the kernel did not say.
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

/// Loads, folds and verifies the images.
pub(super) fn fold(images: &[Image], census: &Census) -> Result<Fold, Failure> {
    check_memory(census)?;
    let memories = images.iter().map(load).collect::<Result<Vec<_>, _>>()?;
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
    let first_difference = verify_all(images, &memories)
        .map_err(|error| Failure::caused("cannot verify the images", &error, error.advice()))?;
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

/// Refuses what would end in the kernel's killing us: every page is there before the first is saved.
fn check_memory(census: &Census) -> Result<(), Failure> {
    let needed_bytes = (census.total.pages + census.slots) * PAGE_SIZE as u64;
    match memory::available(&Tree::real()) {
        Ok((limit, available_bytes)) if available_bytes < needed_bytes => Err(Failure::new(
            format!(
                "folding these images takes {} MiB of memory, and {limit} leaves {} MiB",
                needed_bytes >> 20,
                available_bytes >> 20
            ),
            "give fewer images at once, or leave out --fold for the census alone",
        )),
        _ => Ok(()),
    }
}

fn load(image: &Image) -> Result<Arc<AnonymousMemory>, Failure> {
    let memory =
        AnonymousMemory::new(image.count_pages()).map_err(|error| no_memory(image, &error))?;
    // Pages of zeroes are written too: a VM that has written zeroes holds the page.
    image
        .map_chunks(|first, bytes| memory.write(first as usize * PAGE_SIZE, bytes))
        .map_err(|error| Failure::caused("cannot load the images", &error, error.advice()))?;
    Ok(Arc::new(memory))
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
) -> Result<Option<Difference>, ImageError> {
    for (image, memory) in images.iter().zip(memories) {
        if let Some(offset_bytes) = verify(image, memory)? {
            return Ok(Some(Difference { path: image.path().to_owned(), offset_bytes }));
        }
    }
    Ok(None)
}

/// The first byte of the memory that is not the image's.
fn verify(image: &Image, memory: &AnonymousMemory) -> Result<Option<u64>, ImageError> {
    let differences = image.map_chunks(|first, want| {
        let offset = first as usize * PAGE_SIZE;
        let mut got = vec![0; want.len()];
        memory.read(offset, &mut got);
        let at = want.iter().zip(&got).position(|(want, got)| want != got)?;
        Some((offset + at) as u64)
    })?;
    Ok(differences.into_iter().flatten().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::analyze::census;

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
        let census = census::take(&images).expect("a census");
        let fold = fold(&images, &census).expect("a fold");
        assert!(fold.verified);
        assert_eq!(fold.saved_pages, census.total.saveable_pages);
        assert_eq!(fold.first_difference, None);
    }

    #[test]
    fn a_difference_is_found_at_its_byte() {
        let (file, _) = image(0);
        let image = Image::open(file.path()).expect("an image");
        let memory = load(&image).expect("loaded");
        assert_eq!(verify(&image, &memory).expect("read"), None);
        memory.write(5 * PAGE_SIZE + 7, &[0xee]);
        assert_eq!(verify(&image, &memory).expect("read"), Some(5 * PAGE_SIZE as u64 + 7));
    }
}
