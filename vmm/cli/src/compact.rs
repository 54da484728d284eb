//! `pagefold compact`: fewer mappings for the same pages.

use pagefold_dedup::CompactReport;

use super::failure::{Advise, Failure};
use super::size::mib;
use super::socket::{Socket, no_answer};
use super::table::list;
use super::{Outcome, print};

/// What `pagefold compact` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// Move also slots whose move saves no mappings, if it costs none
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Compacts, and prints by how much.
pub(super) fn run(args: &Args) -> Result<Outcome, Failure> {
    let report = args
        .socket
        .client()?
        .compact(args.all)
        .map_err(|error| no_answer("cannot compact the stores", &error))?;
    if args.json {
        let json = serde_json::to_string(&report)
            .advise("cannot write the report as JSON", "report this as a fault")?;
        print(&format!("{json}\n"))?;
    } else {
        print(&text(&report))?;
    }
    Ok(Outcome::Fine)
}

fn text(report: &CompactReport) -> String {
    let change = |before: String, after: String| format!("{before} → {after}");
    list(&[
        ("moved", format!("{} slots, {} pages", report.moved_slots, report.moved_pages)),
        ("extents", change(report.extents_before.to_string(), report.extents_after.to_string())),
        ("mappings", change(report.vmas_before.to_string(), report.vmas_after.to_string())),
        ("stores", change(mib(report.store_bytes_before), mib(report.store_bytes_after))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_shown_as_unknown() {
        let report = CompactReport {
            moved_slots: 3,
            moved_pages: 9,
            extents_before: 7,
            extents_after: 5,
            store_bytes_after: Some(1 << 20),
            ..CompactReport::default()
        };
        assert_eq!(
            text(&report),
            "moved     3 slots, 9 pages\nextents   7 → 5\nmappings  0 → 0\nstores    ? → 1.0 MiB\n"
        );
    }
}
