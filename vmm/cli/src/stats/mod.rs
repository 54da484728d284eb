//! `pagefold stats`: what a running `pagefold run --api-socket` saves.

mod text;

use std::io;
use std::time::{Duration, Instant};

use pagefold_api::{ApiClient, ClientError};
use pagefold_dedup::stats::DedupStats;

use super::failure::{Advise, Failure};
use super::socket::{Socket, no_answer};
use super::{Outcome, Reader, live, print_to_reader};
pub(super) use text::{details, mappings, mappings_text};
use text::{rates, text};

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Moves the cursor to the top left and clears the screen below it.
const CLEAR_SCREEN: &str = "\x1b[H\x1b[J";

/// What the columns are that a VM's pages add up from.
const COLUMNS: &str = "\
Each page of a VM is merged (shares a slot), zero (given back), unshared (unchanged, without a twin), \
volatile (written lately), deferred (mappings are short), or another: not there, written out to swap, \
or not to be folded.";

/// What could not be done when it cannot.
const WHAT: &str = "cannot get statistics";

/// What `pagefold stats` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = COLUMNS)]
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

/// Polls the socket, once or over and over.
pub(super) fn run(args: &Args) -> Result<Outcome, Failure> {
    let client = args.socket.client()?;
    let first = Look::new(client.dedup().map_err(|error| no_answer(WHAT, &error))?);
    if show(args, &first, None)? == Reader::There && args.watch {
        watch(args, &client, first)?;
    }
    Ok(Outcome::Fine)
}

/// Looks again and again, until the run has ended or the reader of stdout has.
fn watch(args: &Args, client: &ApiClient, mut last: Look) -> Result<(), Failure> {
    loop {
        std::thread::sleep(WATCH_INTERVAL);
        match client.dedup() {
            Ok(stats) => {
                let look = Look::new(stats);
                if show(args, &look, Some(&last))? == Reader::Gone {
                    return Ok(());
                }
                last = look;
            }
            // It was there a moment ago: the run has ended.
            Err(ClientError::Connect { .. }) => return Ok(()),
            // What a run answers last, or nothing, when it ends during a request.
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

/// The counters, and when they were so.
struct Look {
    stats: DedupStats,
    at: Instant,
}

impl Look {
    fn new(stats: DedupStats) -> Self {
        Self { stats, at: Instant::now() }
    }
}

fn show(args: &Args, look: &Look, last: Option<&Look>) -> Result<Reader, Failure> {
    if args.json {
        let json = serde_json::to_string(&look.stats)
            .advise("cannot write the statistics as JSON", "report this as a fault")?;
        return print_to_reader(&format!("{json}\n"));
    }
    let clear = args.watch && live::is_capable(&io::stdout());
    let clear = if clear { CLEAR_SCREEN } else { "" };
    let rates = last.map(|last| rates(&last.stats, &look.stats, look.at - last.at));
    print_to_reader(&format!("{clear}{}", text(&look.stats, rates)))
}
