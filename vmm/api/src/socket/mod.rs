//! The socket's file: made, taken over when stale, and removed.

mod error;
mod files;
mod lock;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket, UnixStream};

pub use error::SocketError;
use files::Making;
pub(crate) use files::OwnFile;
pub use files::remove_sockets;
use lock::Lock;

/// The longest path of a Unix socket, in bytes: `sun_path` less its terminating zero (`unix(7)`).
const MAX_PATH_BYTES: usize = 107;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// Links to links that are followed, as by the kernel.
const MAX_LINKS: usize = 40;

/// Listens at `path`, for this user only. Must be called within a runtime; waits for others who make
/// the same socket for some seconds.
///
/// A socket that nobody listens on is replaced, under a lock, so that nobody removes the one that
/// another has just made. A link stays, and the socket is where it leads.
pub(super) async fn listen(path: &Path) -> Result<(UnixListener, OwnFile), SocketError> {
    check_path(path)?;
    let path = &follow(path)?;
    check_path(path)?;
    // Only to report it of the directory, and not of the lock in it.
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(directory(path))
        .map_err(SocketError::system("open the directory", directory(path)))?;
    let _lock = Lock::acquire(path).await?;
    make_way(path).await?;
    let system = |step| SocketError::system(step, path);
    let socket = UnixSocket::new_stream().map_err(system("make a socket for"))?;
    // The file that bind makes takes its mode from the socket, so at no time is it open to others.
    socket
        .as_fd()
        .try_clone_to_owned()
        .and_then(|fd| File::from(fd).set_permissions(Permissions::from_mode(0o600)))
        .map_err(system("set the mode of"))?;
    let making = Making::begin(path)?;
    socket.bind(path).map_err(system("bind a socket to"))?;
    let found = fs::symlink_metadata(path).map_err(system("find the socket just made at"))?;
    let file = making.own(path, &found);
    let listener = socket.listen(BACKLOG).map_err(system("listen on"))?;
    Ok((listener, file))
}

/// Where the file at `path` is, or would be made, when links are followed.
fn follow(path: &Path) -> Result<PathBuf, SocketError> {
    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        if !fs::symlink_metadata(&at).is_ok_and(|found| found.is_symlink()) {
            break;
        }
        // The kernel decides whose links are not to be followed (`fs.protected_symlinks`).
        if let Err(error) = fs::metadata(&at)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(SocketError::system("follow the link", at)(error));
        }
        let target = fs::read_link(&at).map_err(SocketError::system("read the link", &at))?;
        at = directory(&at).join(target);
    }
    Ok(at)
}

/// The directory of a file.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
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
    let system = |step| SocketError::system(step, path);
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
            log::info!("replacing the stale socket {}", printable(path));
            fs::remove_file(path).map_err(system("remove the stale socket"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(system("find out whether anybody listens on")(error)),
    }
}

/// A path as a log may have it, without control characters.
pub(super) fn printable(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}
