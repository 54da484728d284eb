//! Why there is no socket.

use std::io;
use std::path::PathBuf;

use super::MAX_PATH_BYTES;

/// Why there is no socket; whatever was at its path still is, except as said.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit into an address.
    #[error("the socket's path has {len_bytes} bytes, and at most {MAX_PATH_BYTES} fit: {path}")]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        len_bytes: usize,
    },
    /// The path is empty or has a zero byte.
    #[error("{path:?} is not a path that a socket can have")]
    BadPath {
        /// The path.
        path: PathBuf,
    },
    /// Another process listens there.
    #[error("another process listens on {path}")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// A file that is no socket is there; it was not touched.
    #[error("{path} exists and is not a socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A file that is not of this use is where the lock would be; it was not touched.
    #[error("{path} is not a lock of pagefold's: it is not an empty file")]
    NotALock {
        /// Where the lock would be.
        path: PathBuf,
    },
    /// Another process has been making a socket there for longer than that takes.
    #[error("another process holds {lock}, to make a socket at {path}")]
    Busy {
        /// The path.
        path: PathBuf,
        /// The lock.
        lock: PathBuf,
    },
    /// The process is ending: [`remove_sockets`](crate::remove_sockets) was called.
    #[error("no socket is made at {path} while the process ends")]
    Ending {
        /// The path.
        path: PathBuf,
    },
    /// The system refused a step.
    #[error("cannot {step} {path}")]
    System {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl SocketError {
    /// What makes an error of the system's answer to a step.
    pub(super) fn system(
        step: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::System { step, path, source }
    }
}
