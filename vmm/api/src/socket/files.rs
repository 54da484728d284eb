//! The files that this process has made and is to remove: of its sockets and of their locks.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{SocketError, printable};

/// All of them. A program may end without dropping anything, from any of its threads, and removes
/// them all the same: so they are known in one place.
static FILES: Mutex<Files> = Mutex::new(Files { made: Vec::new(), is_ending: false });

#[derive(Debug)]
struct Files {
    made: Vec<MadeFile>,
    is_ending: bool,
}

/// A file by its path and by what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MadeFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl MadeFile {
    /// Removes it, unless another has taken its place.
    fn remove(&self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", printable(&self.path));
        }
    }
}

/// A file of this process, removed when dropped unless another has taken its place.
#[derive(Debug)]
pub(crate) struct OwnFile(MadeFile);

impl Drop for OwnFile {
    fn drop(&mut self) {
        let mut files = lock();
        files.made.retain(|made| *made != self.0);
        // Removed already when the process ends.
        if !files.is_ending {
            self.0.remove();
        }
    }
}

/// A file that is being made: meanwhile the process does not end, so that none is overlooked.
/// Nothing may block that is done with it.
#[derive(Debug)]
pub(super) struct Making(MutexGuard<'static, Files>);

impl Making {
    /// # Errors
    ///
    /// [`SocketError::Ending`].
    pub(super) fn begin(socket: &Path) -> Result<Self, SocketError> {
        let files = lock();
        if files.is_ending {
            return Err(SocketError::Ending { path: socket.to_owned() });
        }
        Ok(Self(files))
    }

    /// The file at `path`, which was found there, is this process's from now on.
    pub(super) fn own(mut self, path: &Path, found: &Metadata) -> OwnFile {
        // The current directory may be another by the time it is removed.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let made = MadeFile { path, device: found.dev(), inode: found.ino() };
        self.0.made.push(made.clone());
        OwnFile(made)
    }
}

/// Removes the sockets of all [`ApiServer`](crate::ApiServer)s of this process, for a program
/// that is about to end without dropping them, from whichever thread.
///
/// Connections stay as they are. No server can be bound any more
/// ([`SocketError::Ending`]).
pub fn remove_sockets() {
    let mut files = lock();
    files.is_ending = true;
    for made in files.made.drain(..) {
        made.remove();
    }
}

fn lock() -> MutexGuard<'static, Files> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}
