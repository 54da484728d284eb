//! `pagefold stats`: what a running `pagefold run --api-socket` saves.

mod text;

use std::io;
use std::time::{Duration, Instant};

use pagefold_api::{ApiClient, ClientError};
use pagefold_dedup::stats::DedupStats;

use super::failure::{Advise, Failure};
use super::socket::{Socket, no_answer};
use super::{Outcome, Reader, live, print_to_reader};
pub(super) use text::{OF_VMS, details, mappings, mappings_text};
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
        watch(args, &client, first, WATCH_INTERVAL)?;
    }
    Ok(Outcome::Fine)
}

/// Looks again and again, until the run has ended or the reader of stdout has.
fn watch(
    args: &Args,
    client: &ApiClient,
    mut last: Look,
    interval: Duration,
) -> Result<(), Failure> {
    loop {
        std::thread::sleep(interval);
        let stats = match client.dedup() {
            // What a run answers last, or nothing, when it ends during a request; or it has much to do just now.
            Err(error) if !has_ended(&error) => {
                std::thread::sleep(interval);
                client.dedup()
            }
            result => result,
        };
        match stats {
            Ok(stats) => {
                let look = Look::new(stats);
                if show(args, &look, Some(&last))? == Reader::Gone {
                    return Ok(());
                }
                last = look;
            }
            Err(error) if has_ended(&error) => return Ok(()),
            Err(error) => return Err(no_answer(WHAT, &error)),
        }
    }
}

/// Whether a run that was there a moment ago is not there any more.
fn has_ended(error: &ClientError) -> bool {
    matches!(error, ClientError::Connect { .. })
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::{fs, thread};

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_watch_goes_on_after_one_look_in_vain_and_ends_with_the_run() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("api");
        let listener = UnixListener::bind(&path).expect("a listener");
        let stats = serde_json::to_string(&DedupStats::default()).expect("JSON");
        let socket = path.clone();
        let server = thread::spawn(move || {
            let busy = "{\"error\":\"busy\",\"hint\":\"ask again\"}";
            for (status, body) in [("503 X", busy), ("200 OK", &stats), ("200 OK", &stats)] {
                let (mut stream, _) = listener.accept().expect("a client");
                stream.read_exact(&mut [0; 4]).expect("a request");
                let length = body.len();
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")
                    .expect("sent");
                // All of the request is taken, so that closing is no reset.
                let _ = io::copy(&mut stream, &mut io::sink());
            }
            fs::remove_file(socket).expect("removed");
        });
        let line = ["stats", "--json", "--watch", "--api-socket", path.to_str().expect("a path")];
        let args = Line::try_parse_from(line).expect("a command line").args;
        let client = args.socket.client().expect("a client");
        let first = Look::new(DedupStats::default());
        watch(&args, &client, first, Duration::from_millis(10)).expect("the run's end");
        server.join().expect("no panic: all was asked for");
    }
}
