//! Folding images by Pagefold, timed and verified.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{
    AnonymousMemory, AttachError, AttachSpec, DedupMode, Engine, EngineConfig, EngineError,
    Unchanging, VmId,
};

use crate::images::Image;
use crate::interrupt::{Interrupt, Interrupted};
use crate::sys::process_cpu_time;

/// Passes without work after which everything counts as folded.
const QUIET_PASSES: u32 = 2;

/// Why images could not be folded. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// An image could not be put into memory.
    #[error("cannot load {image} into memory")]
    Load {
        /// Its name.
        image: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The engine could not be made.
    #[error("cannot start Pagefold's engine")]
    Engine(#[from] EngineError),
    /// The engine refused an image's memory.
    #[error("cannot fold the memory of an image")]
    Attach(#[from] AttachError),
    /// A pass failed for a VM, as the log has in full.
    #[error("a pass ended early")]
    Pass,
    /// A page does not hold what it held before: a defect, and the worst there is.
    #[error("page {page} of {image} was changed by folding it")]
    Corrupt {
        /// The image.
        image: String,
        /// The number of the page.
        page: usize,
    },
    /// The process's time cannot be read.
    #[error("cannot read the process's clock")]
    Clock(#[source] io::Error),
    /// The process was asked to end.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// What some work took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Time that passed.
    pub elapsed: Duration,
    /// Processor time, user and system.
    pub cpu: Duration,
}

/// How Pagefold did.
#[derive(Debug, Clone)]
pub struct Fold {
    /// From making the engine to the end of the last pass that folded anything, with the processor
    /// time of the whole process, whatever it was spent on.
    pub converged: Cost,
    /// The same to the end of the second pass in a row that found nothing to do.
    pub settled: Cost,
    /// The engine's error.
    pub stats: DedupStats,
}

impl Fold {
    /// Pages saved by sharing and by being zero.
    pub fn saved_pages(&self) -> u64 {
        self.stats.pages_sharing + self.stats.pages_zero
    }
}

/// Loads the images into fresh memory.
///
/// # Errors
///
/// When there is no memory to be had.
pub fn load(images: &[Image]) -> Result<Vec<Arc<AnonymousMemory>>, FoldError> {
    let load = |image: &Image| {
        image.load().map_err(|source| FoldError::Load { image: image.name().to_owned(), source })
    };
    images.iter().map(load).collect()
}

/// Folds the images, each as the memory of a VM that does not run, on fresh memory, and verifies
/// every byte of them afterwards. Loading and verifying are not part of the cost.
///
/// # Errors
///
/// When it cannot be done, and when it was done wrongly.
pub fn fold(
    images: &[Image],
    config: EngineConfig,
    interrupt: &Interrupt,
) -> Result<Fold, FoldError> {
    let memories = load(images)?;
    let clock = Clock::start()?;
    let mut engine = Engine::new(config)?;
    for (vm, memory) in (0..).map(VmId).zip(&memories) {
        let spec = AttachSpec {
            domain: "images".to_owned(),
            mode: DedupMode::On,
            memory: Arc::clone(memory) as _,
            changes: Box::new(Unchanging),
        };
        engine.attach(vm, spec)?;
    }
    let (mut converged, mut quiet) = (clock.cost()?, 0);
    while quiet < QUIET_PASSES {
        interrupt.check()?;
        let pass = engine.pass();
        if !pass.errors.is_empty() {
            return Err(FoldError::Pass);
        }
        quiet = if pass.is_quiet() { quiet + 1 } else { 0 };
        if quiet == 0 {
            converged = clock.cost()?;
        }
    }
    let settled = clock.cost()?;
    let fold = Fold { converged, settled, stats: engine.stats() };
    for (image, memory) in images.iter().zip(&memories) {
        interrupt.check()?;
        if let Some(page) = image.first_difference(memory) {
            return Err(FoldError::Corrupt { image: image.name().to_owned(), page });
        }
    }
    Ok(fold)
}

struct Clock {
    started: Instant,
    cpu_before: Duration,
}

impl Clock {
    fn start() -> Result<Self, FoldError> {
        let cpu_before = process_cpu_time().map_err(FoldError::Clock)?;
        Ok(Self { started: Instant::now(), cpu_before })
    }

    fn cost(&self) -> Result<Cost, FoldError> {
        let elapsed = self.started.elapsed();
        let cpu = process_cpu_time().map_err(FoldError::Clock)?.saturating_sub(self.cpu_before);
        Ok(Cost { elapsed, cpu })
    }
}
