//! `pagefold explain`: whether a page is shared, with whom, or why not.

use pagefold_api::types::GuestPhys;
use pagefold_dedup::{Explanation, Reason, VmId};

use super::failure::{Advise, Failure};
use super::number::small;
use super::socket::{Socket, no_answer};
use super::text::printable;
use super::{Outcome, print};

/// What `pagefold explain` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// The VM whose page it is
    #[arg(long, value_name = "ID", value_parser = small)]
    vm: u32,
    /// A guest-physical address in the page, as in 0x100000 or 1M
    #[arg(long, value_name = "ADDRESS")]
    gpa: GuestPhys,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks, and prints the explanation.
pub(super) fn run(args: &Args) -> Result<Outcome, Failure> {
    let explanation = args
        .socket
        .client()?
        .explain(VmId(args.vm), args.gpa)
        .map_err(|error| no_answer("cannot explain the page", &error))?;
    if args.json {
        let json = serde_json::to_string(&explanation)
            .advise("cannot write the explanation as JSON", "report this as a fault")?;
        print(&format!("{json}\n"))?;
    } else {
        let advice = advice(&explanation, &args.socket);
        print(&format!("{}\n{advice}", explanation.to_string().trim_end()))?;
    }
    Ok(Outcome::Fine)
}

/// The line with what to do about a mode that keeps the page from being shared; or nothing.
fn advice(explanation: &Explanation, socket: &Socket) -> String {
    let Reason::Mode(_) = explanation.reason else { return String::new() };
    let (vm, path) = (explanation.vm, socket.path().to_string_lossy());
    let path = printable(&path);
    format!("To fold it: pagefold set --api-socket {path} --vm {vm} dedup=on\n")
}
