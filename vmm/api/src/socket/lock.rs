//! The lock of those who make a socket at one path at the same time.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::files::{Making, OwnFile};
use super::{SocketError, directory};

/// How long others may take to make a socket: they look for a listener, and bind.
const LIMIT: Duration = Duration::from_secs(5);

/// How often it is tried meanwhile.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// The right to make a socket at a path, and to remove a stale one from it, until it is dropped.
///
/// It is a lock (`flock(2)`) on an empty file beside the socket, which its user alone may open, and
/// which goes with it. One that a killed process has left is used again.
#[derive(Debug)]
pub(super) struct Lock {
    // In this order: removed while it is locked, so that nobody locks a file that is going.
    _file: OwnFile,
    _locked: File,
}

impl Lock {
    /// Waits for the lock of the socket at `path` for a few seconds.
    ///
    /// # Errors
    ///
    /// [`SocketError`].
    pub(super) async fn acquire(path: &Path) -> Result<Self, SocketError> {
        Self::acquire_within(path, LIMIT).await
    }

    pub(super) async fn acquire_within(path: &Path, limit: Duration) -> Result<Self, SocketError> {
        let name = lock_path(path)?;
        let end = Instant::now() + limit;
        loop {
            if let Some(lock) = Self::try_acquire(path, &name)? {
                return Ok(lock);
            }
            if Instant::now() >= end {
                return Err(SocketError::Busy { path: path.to_owned(), lock: name });
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// `None` while it is another's.
    fn try_acquire(path: &Path, name: &Path) -> Result<Option<Self>, SocketError> {
        let making = Making::begin(path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(name)
            .map_err(SocketError::system("open the lock", name))?;
        let opened = file.metadata().map_err(SocketError::system("look at the lock", name))?;
        if !opened.is_file() || opened.len() != 0 {
            return Err(SocketError::NotALock { path: name.to_owned() });
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => {
                return Err(SocketError::system("take the lock", name)(source));
            }
        }
        // Whoever had it may have removed it meanwhile, and others may lock the next.
        match fs::symlink_metadata(name) {
            Ok(found) if (found.dev(), found.ino()) == (opened.dev(), opened.ino()) => {
                Ok(Some(Self { _file: making.own(name, &found), _locked: file }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SocketError::system("find the lock", name)(error)),
        }
    }
}

/// `api` is locked by `.api.pagefold-lock` beside it.
fn lock_path(path: &Path) -> Result<PathBuf, SocketError> {
    let Some(name) = path.file_name() else {
        return Err(SocketError::BadPath { path: path.to_owned() });
    };
    let mut lock = OsString::from(".");
    lock.push(name);
    lock.push(".pagefold-lock");
    Ok(directory(path).join(lock))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use tempfile::TempDir;
    use tokio::runtime::Builder;

    use super::*;

    /// A directory, a path for a socket in it, and the lock of that.
    fn place() -> (TempDir, PathBuf, PathBuf) {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("api");
        let lock = directory.path().join(".api.pagefold-lock");
        (directory, path, lock)
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn a_lock_that_is_held_is_waited_for() {
        let (_directory, path, lock) = place();
        let held = File::create(&lock).expect("a file");
        held.lock().expect("a lock");
        wait(async {
            let mut acquiring = pin!(Lock::acquire(&path));
            let tried = poll_fn(|context| Poll::Ready(acquiring.as_mut().poll(context))).await;
            assert!(tried.is_pending(), "{tried:?}");
            // Its file stays, as that of a process that was killed.
            drop(held);
            drop(acquiring.await.expect("the lock"));
        });
        assert!(!lock.exists());
    }

    #[test]
    fn a_lock_that_is_never_given_back_is_not_waited_for_for_ever() {
        let (_directory, path, lock) = place();
        let held = File::create(&lock).expect("a file");
        held.lock().expect("a lock");
        let busy = wait(Lock::acquire_within(&path, Duration::from_millis(20)));
        assert!(matches!(busy, Err(SocketError::Busy { lock: found, .. }) if found == lock));
        assert!(lock.exists(), "another's lock was removed");
    }

    #[test]
    fn a_lock_whose_file_was_removed_or_replaced_is_nobodys() {
        let (_directory, path, lock) = place();
        let first = wait(Lock::acquire(&path)).expect("the lock");
        fs::remove_file(&lock).expect("removed");
        let second = wait(Lock::acquire(&path)).expect("the next lock");
        drop(first);
        assert!(lock.exists(), "the lock of the second was removed");
        let busy = wait(Lock::acquire_within(&path, Duration::ZERO));
        assert!(matches!(busy, Err(SocketError::Busy { .. })), "{busy:?}");
        drop(second);
        assert!(!lock.exists());
    }

    #[test]
    fn a_file_that_is_no_lock_is_never_removed() {
        let (directory, path, lock) = place();
        fs::write(&lock, "precious").expect("a file");
        let refused = wait(Lock::acquire(&path));
        assert!(matches!(refused, Err(SocketError::NotALock { .. })), "{refused:?}");
        assert_eq!(fs::read_to_string(&lock).expect("a file"), "precious");
        fs::remove_file(&lock).expect("removed");
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, "").expect("a file");
        std::os::unix::fs::symlink(&elsewhere, &lock).expect("a link");
        let refused = wait(Lock::acquire(&path));
        assert!(matches!(refused, Err(SocketError::System { .. })), "{refused:?}");
        assert!(elsewhere.exists() && lock.is_symlink());
    }
}
