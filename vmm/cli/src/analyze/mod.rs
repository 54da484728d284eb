//! `pagefold analyze`: which pages of memory images are identical, and what folding them saves.

mod census;
mod extents;
mod fold;
mod image;
mod keys;
mod needs;
mod progress;
mod report;
mod terminal;

use std::path::PathBuf;

use super::failure::{Advise, Failure};
use super::{Outcome, print};
use image::Image;
use needs::Needed;
use progress::Progress;
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

/// Counts, folds with `--fold`, and reports.
pub(super) fn run(args: &Args) -> Result<Outcome, Failure> {
    Needed::check_count(args.images.len())?;
    let images =
        args.images.iter().map(|path| Image::open(path)).collect::<Result<Vec<_>, _>>().map_err(
            |error| Failure::caused("cannot analyze the images", &error, error.advice()),
        )?;
    let needs = Needed::by(&images, args.fold);
    needs.check_limits()?;
    needs.check_memory(0)?;
    rayon::ThreadPoolBuilder::new()
        .build_global()
        .advise("cannot start threads to read the images", "end other processes of this user")?;
    let census = census::take(&images, &Progress::new("counting", needs.image_bytes()))
        .map_err(|error| Failure::caused("cannot count the pages", &error, error.advice()))?;
    needs.check_memory(census.slots)?;
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
