//! `pagefold stats`: what a running `pagefold run --api-socket` saves.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use pagefold::api::{ApiClient, ClientError};
use pagefold_dedup::stats::DedupStats;

use super::failure::{Advise, Failure};
use super::size::mib;
use super::table::{count, list, table};
use super::{Outcome, print};

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Moves the cursor to the top left and clears the screen below it.
const CLEAR_SCREEN: &str = "\x1b[H\x1b[J";

/// What `pagefold stats` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The socket of a `pagefold run --api-socket PATH`
    #[arg(long, value_name = "PATH")]
    api_socket: PathBuf,
    /// Print JSON: one line a look
    #[arg(long)]
    json: bool,
    /// Look again every second, until interrupted or until the VMs end
    #[arg(long)]
    watch: bool,
}

/// Asks the socket, once or over and over.
pub(super) fn run(args: &Args) -> Result<Outcome, Failure> {
    let client = ApiClient::new(&args.api_socket)
        .advise("cannot ask for statistics", "see whether the system is short of descriptors")?;
    show(args, &client.dedup().map_err(|error| no_answer(&error))?)?;
    if args.watch {
        watch(args, &client)?;
    }
    Ok(Outcome::Fine)
}

/// Looks again and again, until the run has ended.
fn watch(args: &Args, client: &ApiClient) -> Result<(), Failure> {
    loop {
        std::thread::sleep(WATCH_INTERVAL);
        match client.dedup() {
            Ok(stats) => show(args, &stats)?,
            // It was there a moment ago: the run has ended.
            Err(ClientError::Connect { .. }) => return Ok(()),
            Err(error) => return Err(no_answer(&error)),
        }
    }
}

fn show(args: &Args, stats: &DedupStats) -> Result<(), Failure> {
    if args.json {
        let json = serde_json::to_string(stats)
            .advise("cannot write the statistics as JSON", "report this as a fault")?;
        return print(&format!("{json}\n"));
    }
    let clear = args.watch && io::stdout().is_terminal();
    print(&format!("{}{}", if clear { CLEAR_SCREEN } else { "" }, text(stats)))
}

fn no_answer(error: &ClientError) -> Failure {
    let advice = match error {
        ClientError::Connect { .. } => {
            "start one with `pagefold run --api-socket PATH`, and give its path as the same user"
        }
        ClientError::TimedOut { .. } => "see whether the process is stopped or swapping",
        ClientError::Form { .. } => "ask with the same version of pagefold as runs the VMs",
        _ => "see the log of the process that runs the VMs",
    };
    Failure::caused("cannot get statistics", error, advice)
}

/// The counters for people.
pub(super) fn text(stats: &DedupStats) -> String {
    let totals = list(&[
        ("saved", format!("{} (net {})", mib(Some(stats.saved_bytes)), net(stats.general_profit))),
        ("resident", mib(stats.resident_bytes)),
        (
            "pages",
            format!(
                "{} sharing {} slots, {} zero, {} unshared, {} volatile",
                stats.pages_sharing,
                stats.pages_shared,
                stats.pages_zero,
                stats.pages_unshared,
                stats.pages_volatile
            ),
        ),
        (
            "events",
            format!(
                "{} merges, {} again, {} breaks, {} declines, {} errors",
                stats.events.merges,
                stats.events.remerges,
                stats.events.breaks,
                stats.events.declines,
                stats.events.errors
            ),
        ),
        ("mappings", format!("{} of {}", stats.vmas_used, stats.vmas_budget)),
        ("passes", format!("{} in {:.2} s of processor time", stats.full_scans, stats.cpu_seconds)),
    ]);
    let headings =
        ["vm", "mode", "pages", "merged", "zero", "unshared", "volatile", "vmas", "private"];
    let rows: Vec<Vec<String>> = stats
        .vms
        .iter()
        .map(|vm| {
            vec![
                vm.id.to_string(),
                vm.mode.clone(),
                count(Some(vm.pages)),
                count(Some(vm.merging_pages)),
                count(Some(vm.zero_pages)),
                count(Some(vm.unshared_pages)),
                count(Some(vm.volatile_pages)),
                count(Some(vm.vmas)),
                mib(vm.private_bytes),
            ]
        })
        .collect();
    format!("{totals}\n{}", table(&headings, &rows))
}

/// A profit, which may be a loss.
fn net(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", mib(Some(bytes.unsigned_abs())))
}
