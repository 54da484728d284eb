//! The result of an analysis.

use std::fmt;

use serde::Serialize;

use super::census::{ImageCensus, TotalCensus};
use super::fold::Fold;
use crate::size::mib;
use crate::stats;
use crate::table::{count, list, per_cent, table};
use crate::text::printable;

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) images: Vec<ImageCensus>,
    pub(super) census: TotalCensus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fold: Option<Fold>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", images(&self.images))?;
        writeln!(f, "{}", total(&self.census))?;
        f.write_str(&lengths(&self.census))?;
        match &self.fold {
            Some(fold) => write!(f, "\n{}", folded(fold, &self.census)),
            None => Ok(()),
        }
    }
}

fn images(images: &[ImageCensus]) -> String {
    let headings = ["image", "pages", "zero", "shareable", "in place", "extents", "mappings"];
    let rows: Vec<Vec<String>> = images
        .iter()
        .map(|image| {
            vec![
                printable(&image.path).into_owned(),
                image.pages.to_string(),
                image.zero_pages.to_string(),
                image.shareable_pages.to_string(),
                image.same_position_pages.map_or_else(|| "-".to_owned(), |same| same.to_string()),
                image.extents.to_string(),
                image.vmas_needed.to_string(),
            ]
        })
        .collect();
    table(&headings, &rows)
}

fn total(census: &TotalCensus) -> String {
    let of_all = |pages: u64| format!("{pages} ({})", per_cent(pages, census.pages));
    let zero = match census.hole_pages {
        0 => of_all(census.zero_pages),
        holes => format!("{}, of which {holes} are holes", of_all(census.zero_pages)),
    };
    list(&[
        ("pages", census.pages.to_string()),
        ("zero", zero),
        ("distinct", of_all(census.distinct_pages)),
        (
            "saveable",
            format!("{}, {}", of_all(census.saveable_pages), mib(Some(census.saveable_bytes))),
        ),
        ("equal in place", of_all(census.same_position_pages)),
        ("mappings needed", census.vmas_needed.to_string()),
    ])
}

fn lengths(census: &TotalCensus) -> String {
    let lengths = &census.extent_lengths;
    let Some(mean) = lengths.mean else {
        return "no extents\n".to_owned();
    };
    let rows: Vec<Vec<String>> = lengths
        .classes
        .iter()
        .map(|class| {
            let pages = if class.from == class.to {
                class.from.to_string()
            } else {
                format!("{} to {}", class.from, class.to)
            };
            vec![pages, class.extents.to_string(), per_cent(class.pages, census.shareable_pages)]
        })
        .collect();
    format!(
        "{}mean {mean:.1} pages, longest {}\n",
        table(&["pages in extent", "extents", "of shareable pages"], &rows),
        lengths.max
    )
}

fn folded(fold: &Fold, census: &TotalCensus) -> String {
    list(&[
        (
            "saved",
            format!(
                "{} pages, {}: {} of what can be",
                fold.saved_pages,
                mib(Some(fold.saved_bytes)),
                per_cent(fold.saved_pages, census.saveable_pages)
            ),
        ),
        ("passes", fold.passes.to_string()),
        ("time", format!("{:.3} s, {} s of processor time", fold.elapsed_s, seconds(fold.cpu_s))),
        ("extents", count(Some(fold.extents))),
        (
            "mappings",
            stats::mappings_text(&fold.dedup, ", and analyze again, or give fewer images at once"),
        ),
        (
            "verified",
            if fold.verified { "every byte" } else { "NO: the memory differs from the images" }
                .to_owned(),
        ),
    ])
}

fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| format!("{value:.2}"))
}
