//! `pagefold vms`, `pause`, `resume` and `stop`: the VMs of a running `pagefold run --api-socket`.

use std::time::{Duration, Instant};
use std::{io, thread};

use pagefold::BuiltinStatus;
use pagefold::status::{VmState, VmStatus};
use pagefold_api::types::ErrorKind;
use pagefold_api::{ApiClient, ClientError};
use pagefold_dedup::VmId;

use super::failure::{Advise, Failure};
use super::number::small;
use super::size::mib;
use super::socket::{Socket, no_answer};
use super::table::{count, table};
use super::{Outcome, live, print};

/// How long a process may take to end that reports that it is ending.
const END_LIMIT: Duration = Duration::from_secs(10);

/// How often such a process is polled.
const INTERVAL: Duration = Duration::from_millis(50);

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

    /// Makes it; `None` if the VM was to stop, and has ended with its process. `was_there` means that the
    /// process has answered before.
    fn make(
        self,
        client: &ApiClient,
        vm: VmId,
        was_there: bool,
    ) -> Result<Option<VmStatus>, ClientError> {
        match self {
            Self::Pause => client.pause(vm).map(Some),
            Self::Resume => client.resume(vm).map(Some),
            Self::Stop => unless_ended(was_there, || client.stop(vm)),
        }
    }

    /// The VMs that have not ended; `None` if they were to stop, and have ended with their process.
    fn all(self, client: &ApiClient) -> Result<Option<Vec<VmId>>, ClientError> {
        let vms = match self {
            Self::Stop => unless_ended(false, || client.vms())?,
            Self::Pause | Self::Resume => Some(client.vms()?),
        };
        let alive = |vm: &VmStatus| vm.state != VmState::Stopped;
        Ok(vms.map(|vms| vms.into_iter().filter(alive).map(|vm| vm.id).collect()))
    }
}

/// Asks again for as long as the process reports that it is ending; `None` once it has ended.
fn unless_ended<T>(
    mut was_there: bool,
    ask: impl Fn() -> Result<T, ClientError>,
) -> Result<Option<T>, ClientError> {
    let end = Instant::now() + END_LIMIT;
    loop {
        match ask() {
            Err(ClientError::Connect { source, .. }) if was_there && is_gone(&source) => {
                return Ok(None);
            }
            Err(error) if is_ending(&error) && Instant::now() < end => was_there = true,
            result => return result.map(Some),
        }
        thread::sleep(INTERVAL);
    }
}

/// Whether this is what a process answers last, or nothing, when it ends during a request.
fn is_ending(error: &ClientError) -> bool {
    let gone = Some(ErrorKind::Gone);
    matches!(error, ClientError::Closed { .. })
        || matches!(error, ClientError::Refused { kind, .. } if *kind == gone)
}

/// Whether nobody listens at a socket, and not only for want of room or permission.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
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

/// Changes VMs one after the other, and prints what each is then. All are tried, and each that cannot be is
/// named.
pub(super) fn change(args: &ChangeArgs, change: Change) -> Result<Outcome, Failure> {
    let client = args.socket.client()?;
    let vms = if args.all {
        change.all(&client).map_err(|error| no_answer("cannot list the VMs", &error))?
    } else {
        Some(args.vms.iter().copied().map(VmId).collect())
    };
    let Some(vms) = vms else {
        print("all VMs have ended with their process\n")?;
        return Ok(Outcome::Fine);
    };
    let mut failures = change_each(&client, &vms, change, args.all)?;
    let Some(last) = failures.pop() else { return Ok(Outcome::Fine) };
    for failure in failures {
        // With stderr gone, the code is all that is left to report.
        let _ = live::print(&failure.to_string());
    }
    Err(last)
}

/// Prints what each VM is then, and returns why some could not be changed.
fn change_each(
    client: &ApiClient,
    vms: &[VmId],
    change: Change,
    mut was_there: bool,
) -> Result<Vec<Failure>, Failure> {
    let mut failures = Vec::new();
    for &vm in vms {
        match change.make(client, vm, was_there) {
            Ok(status) => {
                let state = status.map(|status| status.state.to_string());
                let state = state.as_deref().unwrap_or("ended with its process");
                print(&format!("VM {vm}: {state}\n"))?;
            }
            Err(error) => {
                failures.push(no_answer(&format!("cannot {} VM {vm}", change.verb()), &error));
                // What is wrong with the process is so for the others, too.
                if is_ending(&error) || !matches!(error, ClientError::Refused { .. }) {
                    break;
                }
            }
        }
        was_there = true;
    }
    Ok(failures)
}

fn text(vms: &[VmStatus]) -> String {
    let rows: Vec<Vec<String>> = vms
        .iter()
        .map(|vm| {
            let builtin = BuiltinStatus::of(vm).unwrap_or_default();
            vec![
                vm.id.to_string(),
                vm.state.to_string(),
                vm.dedup.to_string(),
                mib(Some(vm.memory_bytes)),
                vm.ready_ms.map_or_else(|| "not yet".to_owned(), |ms| format!("{ms} ms")),
                count(builtin.writes),
                count(builtin.verifications),
                count(builtin.corrupt),
                vm.guest.clone(),
            ]
        })
        .collect();
    let headings =
        ["vm", "state", "mode", "memory", "ready", "writes", "verified", "corrupt", "guest"];
    table(&headings, &rows)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::PathBuf;

    use super::*;

    fn connect(kind: io::ErrorKind) -> ClientError {
        ClientError::Connect { path: PathBuf::from("/s"), source: kind.into() }
    }

    fn refused(kind: Option<ErrorKind>) -> ClientError {
        let (error, hint) = ("no".to_owned(), "see the log".to_owned());
        let status = hyper::StatusCode::SERVICE_UNAVAILABLE;
        ClientError::Refused { path: PathBuf::from("/s"), status, kind, error, hint }
    }

    /// What comes of these answers, the first one last.
    fn after(was_there: bool, answers: Vec<Result<u8, ClientError>>) -> Result<Option<u8>, ()> {
        let answers = RefCell::new(answers);
        let ask = || answers.borrow_mut().pop().expect("it is asked no more");
        unless_ended(was_there, ask).map_err(drop)
    }

    #[test]
    fn a_vm_whose_process_ends_meanwhile_has_been_stopped() {
        let ending = || Err(refused(Some(ErrorKind::Gone)));
        let nobody = || Err(connect(io::ErrorKind::NotFound));
        assert_eq!(after(false, vec![nobody(), ending(), ending()]), Ok(None));
        assert_eq!(after(true, vec![nobody()]), Ok(None));
        assert_eq!(after(false, vec![Ok(7), ending()]), Ok(Some(7)));
        // It cannot be determined, or it is another matter.
        assert_eq!(after(false, vec![nobody()]), Err(()));
        assert_eq!(after(true, vec![Err(connect(io::ErrorKind::PermissionDenied))]), Err(()));
        assert_eq!(after(true, vec![Err(refused(Some(ErrorKind::NoSuchVm)))]), Err(()));
        assert_eq!(after(true, vec![Err(refused(None))]), Err(()));
    }
}
