//! `pagefold stats`: what a running `pagefold run --api-socket` saves.

use std::io::{self, IsTerminal};
use std::time::Duration;

use pagefold::api::{ApiClient, ClientError};
use pagefold_dedup::Knobs;
use pagefold_dedup::stats::DedupStats;

use super::failure::{Advise, Failure};
use super::knobs::differences;
use super::size::mib;
use super::socket::{Socket, no_answer};
use super::table::{count, list, table};
use super::{Outcome, Reader, print_to_reader};

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Moves the cursor to the top left and clears the screen below it.
const CLEAR_SCREEN: &str = "\x1b[H\x1b[J";

/// What could not be done when it cannot.
const WHAT: &str = "cannot get statistics";

/// What `pagefold stats` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// Print JSON: one line a look
    #[arg(long)]
    json: bool,
    /// Look again every second, until interrupted or until the VMs end
    #[arg(long)]
    watch: bool,
}

/// Asks the socket, once or over and over.
pub(super) fn run(args: &Args) -> Result<Outcome, Failure> {
    let client = args.socket.client()?;
    let reader = show(args, &client.dedup().map_err(|error| no_answer(WHAT, &error))?)?;
    if args.watch && reader == Reader::There {
        watch(args, &client)?;
    }
    Ok(Outcome::Fine)
}

/// Looks again and again, until the run has ended or nobody reads what it says.
fn watch(args: &Args, client: &ApiClient) -> Result<(), Failure> {
    loop {
        std::thread::sleep(WATCH_INTERVAL);
        match client.dedup() {
            Ok(stats) => {
                if show(args, &stats)? == Reader::Gone {
                    return Ok(());
                }
            }
            // It was there a moment ago: the run has ended.
            Err(ClientError::Connect { .. }) => return Ok(()),
            // What a run answers last, or nothing, when it ends while it is asked.
            Err(error) => {
                std::thread::sleep(WATCH_INTERVAL);
                return match client.dedup() {
                    Err(ClientError::Connect { .. }) => Ok(()),
                    _ => Err(no_answer(WHAT, &error)),
                };
            }
        }
    }
}

fn show(args: &Args, stats: &DedupStats) -> Result<Reader, Failure> {
    if args.json {
        let json = serde_json::to_string(stats)
            .advise("cannot write the statistics as JSON", "report this as a fault")?;
        return print_to_reader(&format!("{json}\n"));
    }
    let clear = args.watch && io::stdout().is_terminal();
    print_to_reader(&format!("{}{}", if clear { CLEAR_SCREEN } else { "" }, text(stats)))
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
        ("chains", format!("{} of {} dups", stats.stable_node_chains, stats.stable_node_dups)),
        (
            "events",
            format!(
                "{} merges, {} again, {} breaks, {} declines, {} unmerges, {} errors",
                stats.events.merges,
                stats.events.remerges,
                stats.events.breaks,
                stats.events.declines,
                stats.events.unmerges,
                stats.events.errors
            ),
        ),
        (
            "scanned",
            format!(
                "{} pages, {} skipped because they keep changing",
                stats.events.pages_scanned, stats.events.pages_skipped
            ),
        ),
        ("mappings", format!("{} of {}", stats.vmas_used, stats.vmas_budget)),
        ("passes", format!("{} in {:.2} s of processor time", stats.full_scans, stats.cpu_seconds)),
        ("knobs", knobs(&stats.knobs)),
    ]);
    let headings =
        ["vm", "mode", "pages", "merged", "zero", "unshared", "volatile", "vmas", "private", "net"];
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
                net(vm.profit),
            ]
        })
        .collect();
    format!("{totals}\n{}", table(&headings, &rows))
}

/// The knobs that somebody has set.
fn knobs(knobs: &Knobs) -> String {
    let set: Vec<String> = differences(&Knobs::default(), knobs)
        .into_iter()
        .map(|(name, _, value)| format!("{name}={value}"))
        .collect();
    if set.is_empty() { "as by default".to_owned() } else { set.join(" ") }
}

/// A profit, which may be a loss.
fn net(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", mib(Some(bytes.unsigned_abs())))
}
