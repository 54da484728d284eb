//! Folding images for real: each is the memory of a VM that does not run.
//!
//! | file | what it is |
//! |---|---|
//! | `loading` | an image's pages into memory |
//! | `verification` | whether the memory still reads as the image |

mod loading;
mod verification;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, PAGE_SIZE, Unchanging, VmId,
};
use serde::Serialize;

use super::census::Census;
use super::image::Image;
use super::progress::Progress;
use crate::failure::{Advise, Failure};
use crate::process;
use loading::load;
use verification::{Difference, verify_all};

/// The images of one command may share with each other.
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

/// What to report of an image that is not what it was when its pages were counted.
fn changed(image: &Image, offset_bytes: u64) -> Failure {
    Failure::new(
        format!("{} changed at byte {offset_bytes} while it was analyzed", image.path().display()),
        "give an image that nobody writes to: of a VM that has ended, or a copy",
    )
}

#[cfg(test)]
mod tests;
