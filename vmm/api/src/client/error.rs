//! Why there is no answer.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper::StatusCode;

use pagefold_api_types::ErrorKind;

use crate::SocketError;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The system gave no thread or no event queue.
    #[error("cannot start a client")]
    Runtime(#[source] io::Error),
    /// No socket can be there.
    #[error("cannot connect to a control socket")]
    Path(#[source] SocketError),
    /// Nobody listens, or not for this user.
    #[error("cannot connect to {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The connection ended before the answer: the process has, or had too many clients.
    #[error("{path} was closed before it answered")]
    Closed {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: hyper::Error,
    },
    /// Whatever was answered was not HTTP.
    #[error("{path} did not answer as a control socket does")]
    Http {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("{path} did not answer within {} s", limit.as_secs())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// The time.
        limit: Duration,
    },
    /// A refusal.
    #[error("{error}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// The status.
        status: StatusCode,
        /// What was wrong, if it has that.
        kind: Option<ErrorKind>,
        /// The same, in its text.
        error: String,
        /// What to do, in its text.
        hint: String,
    },
    /// An answer that is not understood: perhaps of another version.
    #[error("the answer of {path} is of another form than expected")]
    Form {
        /// The socket.
        path: PathBuf,
        /// Where it differs.
        source: serde_json::Error,
    },
}
