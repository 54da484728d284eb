//! `pagefold analyze`: which pages of memory images are identical, and what folding them saves.

mod census;
mod extents;
mod fold;
mod image;
mod report;

use std::path::PathBuf;

use pagefold::limits::Tree;
use pagefold::limits::room::{Needs, lacking};
use pagefold_dedup::{EngineConfig, PAGE_SIZE};

use super::failure::{Advise, Failure};
use super::{Outcome, print};
use image::Image;
use report::Report;

/// What `pagefold analyze` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Raw memory images: any size that is a multiple of 4096 bytes
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Fold the images for real, as the memory of VMs that do not run, and verify every byte
    #[arg(long)]
    fold: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Refuses what would fail, or be ended by the kernel, half way.
fn check_limits(args: &Args, images: &[Image]) -> Result<(), Failure> {
    let (memory_bytes, store_bytes) = if args.fold {
        let pages: u64 = images.iter().map(|image| u64::from(image.count_pages())).sum();
        // Without /proc, which is what the failure of the engine will say.
        let store_bytes = EngineConfig::default().store_bytes().unwrap_or(0);
        (pages.saturating_mul(PAGE_SIZE as u64), store_bytes)
    } else {
        (0, 0)
    };
    let needs = Needs::of_images(images.len(), memory_bytes, store_bytes);
    match lacking(&Tree::real(), &needs).first() {
        Some(error) => Err(Failure::limited("cannot analyze the images", error)),
        None => Ok(()),
    }
}

/// Counts, folds if asked to, and reports.
pub(super) fn run(args: &Args) -> Result<Outcome, Failure> {
    let images =
        args.images.iter().map(|path| Image::open(path)).collect::<Result<Vec<_>, _>>().map_err(
            |error| Failure::caused("cannot analyze the images", &error, error.advice()),
        )?;
    check_limits(args, &images)?;
    rayon::ThreadPoolBuilder::new()
        .build_global()
        .advise("cannot start threads to read the images", "end other processes of this user")?;
    let census = census::take(&images)
        .map_err(|error| Failure::caused("cannot count the pages", &error, error.advice()))?;
    let fold = if args.fold { Some(fold::fold(&images, &census)?) } else { None };
    let outcome = match &fold {
        Some(fold) if !fold.verified => Outcome::Corrupt,
        _ => Outcome::Fine,
    };
    let report = Report { images: census.images, census: census.total, fold };
    if args.json {
        let json = serde_json::to_string(&report)
            .advise("cannot write the report as JSON", "report this as a fault")?;
        print(&format!("{json}\n"))?;
    } else {
        print(&report.to_string())?;
    }
    Ok(outcome)
}
