//! `pagefold vms`, `pause`, `resume` and `stop`: the VMs of a running `pagefold run --api-socket`.

use pagefold::status::{VmState, VmStatus};
use pagefold_api::{ApiClient, ClientError};
use pagefold_dedup::VmId;

use super::failure::{Advise, Failure};
use super::number::small;
use super::size::mib;
use super::socket::{Socket, no_answer};
use super::table::{count, table};
use super::{Outcome, print};

/// What `pagefold vms` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// What `pagefold pause`, `resume` and `stop` take.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").args(["vms", "all"]).required(true))]
pub(super) struct ChangeArgs {
    #[command(flatten)]
    socket: Socket,
    /// The VMs
    #[arg(long = "vm", value_name = "ID", value_parser = small)]
    vms: Vec<u32>,
    /// All VMs that there are and that have not ended; a run that is being launched goes on to make the rest
    #[arg(long)]
    all: bool,
}

/// What is done with a VM.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Pause,
    Resume,
    Stop,
}

impl Change {
    fn verb(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
        }
    }

    fn make(self, client: &ApiClient, vm: VmId) -> Result<VmStatus, ClientError> {
        match self {
            Self::Pause => client.pause(vm),
            Self::Resume => client.resume(vm),
            Self::Stop => client.stop(vm),
        }
    }
}

/// Lists all VMs.
pub(super) fn list(args: &Args) -> Result<Outcome, Failure> {
    let vms = args.socket.client()?.vms();
    let vms = vms.map_err(|error| no_answer("cannot list the VMs", &error))?;
    if args.json {
        let json = serde_json::to_string(&vms)
            .advise("cannot write the VMs as JSON", "report this as a fault")?;
        print(&format!("{json}\n"))?;
    } else {
        print(&text(&vms))?;
    }
    Ok(Outcome::Fine)
}

/// Changes VMs one after the other, and says what each is then. The first that cannot be is the last
/// that is tried.
pub(super) fn change(args: &ChangeArgs, change: Change) -> Result<Outcome, Failure> {
    let client = args.socket.client()?;
    let vms = if args.all {
        let vms = client.vms().map_err(|error| no_answer("cannot list the VMs", &error))?;
        vms.iter().filter(|vm| vm.state != VmState::Stopped).map(|vm| vm.id).collect()
    } else {
        args.vms.iter().copied().map(VmId).collect::<Vec<_>>()
    };
    for vm in vms {
        let what = format!("cannot {} VM {vm}", change.verb());
        let status = change.make(&client, vm).map_err(|error| no_answer(&what, &error))?;
        print(&format!("VM {vm}: {}\n", status.state))?;
    }
    Ok(Outcome::Fine)
}

fn text(vms: &[VmStatus]) -> String {
    let rows: Vec<Vec<String>> = vms
        .iter()
        .map(|vm| {
            vec![
                vm.id.to_string(),
                vm.state.to_string(),
                vm.dedup.to_string(),
                mib(Some(vm.memory_bytes)),
                vm.ready_ms.map_or_else(|| "not yet".to_owned(), |ms| format!("{ms} ms")),
                count(vm.writes),
                count(vm.verifications),
                count(vm.corrupt),
                vm.guest.clone(),
            ]
        })
        .collect();
    let headings =
        ["vm", "state", "mode", "memory", "ready", "writes", "verified", "corrupt", "guest"];
    table(&headings, &rows)
}
