//! Asking the control socket of a `pagefold run --api-socket`.

use std::path::{Path, PathBuf};

use pagefold_api::types::ErrorKind;
use pagefold_api::{ApiClient, ClientError};

use super::failure::Failure;

/// Where the socket is.
#[derive(Debug, clap::Args)]
pub(super) struct Socket {
    /// The socket of a `pagefold run --api-socket PATH`
    #[arg(long, value_name = "PATH")]
    api_socket: PathBuf,
}

impl Socket {
    /// Its path, as it was given.
    pub(super) fn path(&self) -> &Path {
        &self.api_socket
    }

    /// A client of it; nothing is connected yet.
    pub(super) fn client(&self) -> Result<ApiClient, Failure> {
        ApiClient::new(&self.api_socket)
            .map_err(|error| no_answer("cannot ask the control socket", &error))
    }
}

/// A failure to get something from a socket, with what to do about it.
pub(super) fn no_answer(what: &str, error: &ClientError) -> Failure {
    let advice = match error {
        ClientError::Connect { .. } => {
            "start one with `pagefold run --api-socket PATH`, and give its path as the same user"
        }
        ClientError::Path(_) => {
            "give a shorter path: one that is relative to the current directory will do"
        }
        ClientError::TimedOut { .. } => "see whether the process is stopped or swapping",
        ClientError::Form { .. } => "ask with the same version of pagefold as runs the VMs",
        ClientError::Refused { kind, hint, .. } => {
            kind.map_or(hint.as_str(), |kind| advice(kind).unwrap_or(hint))
        }
        ClientError::Runtime(_) => {
            "see the limits on descriptors and threads (ulimit -n, ulimit -u)"
        }
        ClientError::Closed { .. } | ClientError::Http { .. } => {
            "see the log of the process that runs the VMs"
        }
    };
    match error {
        // It names itself what cannot be done.
        ClientError::Refused { error, .. } if error.starts_with("cannot ") => {
            Failure::new(error, advice)
        }
        error => Failure::caused(what, error, advice),
    }
}

/// What to do about a refusal, in commands.
fn advice(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::NoSuchVm => "`pagefold vms` lists the VMs",
        ErrorKind::Conflict => "`pagefold vms` says which state and mode the VM is in",
        ErrorKind::BadKnob => "`pagefold set --help` lists all knobs and what they may be",
        ErrorKind::Advised => "`pagefold set advisor_mode=none`, together with pages_to_scan",
        ErrorKind::Busy => {
            "nothing was changed; `pagefold set run=2` returns when nothing is shared any more: set it \
             then, and fold again with `pagefold set run=1`"
        }
        ErrorKind::NotFolding => "fold again with `pagefold set run=1`",
        ErrorKind::NotPages => "give --gpa and --bytes as multiples of 4096, --bytes above 0",
        ErrorKind::NoMemory => {
            "a VM's memory begins at 0; `pagefold vms` says how much of it each has"
        }
        ErrorKind::Unsettled => "guests that keep writing may never settle; or give more --timeout",
        ErrorKind::Gone => "see the log of the process that runs the VMs",
        ErrorKind::Other => return None,
    })
}
