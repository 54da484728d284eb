//! The socket's file: made, taken over when stale, and removed.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket, UnixStream};

/// The longest path of a Unix socket, in bytes: `sun_path` less its terminating zero (`unix(7)`).
const MAX_PATH_BYTES: usize = 107;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

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
    /// Another process is making a socket in the same directory at this moment.
    #[error("another process is just making a socket beside {path}")]
    Busy {
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

/// A socket's file, removed when dropped unless another has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Listens at `path`, for this user only. Must be called within a runtime.
///
/// A socket that nobody listens on is replaced. Starters in the same directory take turns (a lock
/// on the directory), so that none removes the socket another has just made.
pub(super) async fn listen(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    check_path(path)?;
    let system = |step| move |source| SocketError::System { step, path: path.to_owned(), source };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = File::open(parent).map_err(|source| SocketError::System {
        step: "open the directory",
        path: parent.to_owned(),
        source,
    })?;
    match directory.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            return Err(SocketError::Busy { path: path.to_owned() });
        }
        Err(fs::TryLockError::Error(source)) => {
            return Err(system("lock the directory of")(source));
        }
    }
    make_way(path).await?;
    let socket = UnixSocket::new_stream().map_err(system("make a socket for"))?;
    // The file that bind makes takes its mode from the socket, so at no time is it open to others.
    socket
        .as_fd()
        .try_clone_to_owned()
        .and_then(|fd| File::from(fd).set_permissions(Permissions::from_mode(0o600)))
        .map_err(system("set the mode of"))?;
    socket.bind(path).map_err(system("bind a socket to"))?;
    let found = fs::symlink_metadata(path).map_err(system("find the socket just made at"))?;
    let file = SocketFile { path: path.to_owned(), device: found.dev(), inode: found.ino() };
    let listener = socket.listen(BACKLOG).map_err(system("listen on"))?;
    Ok((listener, file))
}

/// Whether a socket can have the path: [`SocketError::PathTooLong`] or [`SocketError::BadPath`] if
/// not.
pub(super) fn check_path(path: &Path) -> Result<(), SocketError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(SocketError::BadPath { path: path.to_owned() });
    }
    if bytes.len() > MAX_PATH_BYTES {
        return Err(SocketError::PathTooLong { path: path.to_owned(), len_bytes: bytes.len() });
    }
    Ok(())
}

/// Removes a socket at `path` that nobody listens on.
async fn make_way(path: &Path) -> Result<(), SocketError> {
    let system = |step| move |source| SocketError::System { step, path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system("look at")(error)),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path).await {
        // A full queue of connections is somebody's too.
        Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(SocketError::InUse { path: path.to_owned() })
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            log::info!("replacing the stale socket {}", path.display());
            fs::remove_file(path).map_err(system("remove the stale socket"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(system("find out whether anybody listens on")(error)),
    }
}
