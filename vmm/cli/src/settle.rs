//! `pagefold settle`: wait until nothing is left to fold.

use std::time::Duration;

use pagefold_api::types::request::MAX_SETTLE_LIMIT;

use super::failure::{Advise, Failure};
use super::socket::{Socket, no_answer};
use super::{Outcome, print};

/// What `pagefold settle` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// How long to wait, as in 30s or "1m 30s"
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Waits, and prints what came of it.
pub(super) fn run(args: &Args) -> Result<Outcome, Failure> {
    if args.timeout > MAX_SETTLE_LIMIT {
        let most = humantime::format_duration(MAX_SETTLE_LIMIT);
        return Err(Failure::usage(
            format!("--timeout {} is too long", humantime::format_duration(args.timeout)),
            format!("give {most} at most, and ask again if that was not enough"),
        ));
    }
    let report = args.socket.client()?.settle(args.timeout);
    let report = report.map_err(|error| no_answer("cannot wait for folding to settle", &error))?;
    let ms = report.elapsed_ms;
    if args.json {
        let json = serde_json::to_string(&report)
            .advise("cannot write the report as JSON", "report this as a fault")?;
        print(&format!("{json}\n"))?;
    } else if report.settled {
        print(&format!("settled after {} passes, {ms} ms\n", report.passes))?;
    } else {
        print(&format!("NOT settled within {ms} ms: guests that keep writing may never be\n"))?;
    }
    Ok(if report.settled { Outcome::Fine } else { Outcome::Unsettled })
}
