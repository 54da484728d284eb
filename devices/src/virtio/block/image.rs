//! A raw image: a file, or a block device of the host's, sector by sector.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use vm_memory::VolatileSlice;

use super::storage::{ID_BYTES, SECTOR_BYTES, Storage};
use crate::sys::vectored;

/// As many zeroes as are written at once where the file system has no faster way.
static ZEROES: [u8; 0x1_0000] = [0; 0x1_0000];

/// Why a disk cannot be used. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenImageError {
    /// There is no such file, or it may not be opened.
    #[error("cannot open the disk {} for {}", path.display(), access(*is_readonly))]
    Open {
        /// The file.
        path: PathBuf,
        /// Whether only reading was asked for.
        is_readonly: bool,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("the disk {} is {found}, and neither a regular file nor a block device", path.display())]
    NotADisk {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// It has no whole number of sectors.
    #[error(
        "the disk {} has {bytes} bytes, and a raw image has a multiple of {SECTOR_BYTES}, one at least: \
         `truncate -s %{SECTOR_BYTES}` makes it longer",
        path.display()
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Somebody else uses it in a way that this use would be in the way of.
    #[error(
        "the disk {} is in use: one that is written has one user, and only readers may share one (readonly=on)",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be locked.
    #[error("cannot lock the disk {}, so that nobody else writes it", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

fn access(is_readonly: bool) -> &'static str {
    if is_readonly { "reading" } else { "reading and writing" }
}

/// A raw image that is open, and locked against other users (`flock(2)`): one for itself if it is written, and shared
/// among readers if not.
pub struct RawImage {
    file: File,
    path: PathBuf,
    is_readonly: bool,
    capacity_sectors: u64,
}

impl RawImage {
    /// Opens the image at `path`.
    ///
    /// # Errors
    ///
    /// When there is no such file, or it is no disk, or somebody else uses it.
    pub fn open(path: &Path, is_readonly: bool) -> Result<Self, OpenImageError> {
        let failed = |source| OpenImageError::Open { path: path.into(), is_readonly, source };
        // Before it is opened: opening some of them has effects.
        let kind = path.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenImageError::NotADisk { path: path.into(), found: name(kind) });
        }
        let mut options = OpenOptions::new();
        options.read(true).write(!is_readonly);
        // What has become a pipe meanwhile does not block us; it has no size below.
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let mut file = options.open(path).map_err(failed)?;
        let locked = if is_readonly { file.try_lock_shared() } else { file.try_lock() };
        locked.map_err(|error| match error {
            TryLockError::WouldBlock => OpenImageError::InUse { path: path.into() },
            TryLockError::Error(source) => OpenImageError::Lock { path: path.into(), source },
        })?;
        // A block device has no length but this.
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(OpenImageError::Size { path: path.into(), bytes });
        }
        let capacity_sectors = bytes / SECTOR_BYTES;
        Ok(Self { file, path: path.into(), is_readonly, capacity_sectors })
    }

    /// Whether the file system did it: false if it cannot.
    fn allocate(&self, how: FallocateFlags, offset: u64, len_bytes: u64) -> io::Result<bool> {
        let how = how | FallocateFlags::KEEP_SIZE;
        loop {
            match rustix::fs::fallocate(&self.file, how, offset, len_bytes) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                // The last is a block device's whose blocks are larger than sectors.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::INVAL) => {
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Storage for RawImage {
    fn capacity_sectors(&self) -> u64 {
        self.capacity_sectors
    }

    fn is_readonly(&self) -> bool {
        self.is_readonly
    }

    /// The file's name, as much of it as there is room for.
    fn id(&self) -> [u8; ID_BYTES] {
        let name = self.path.file_name().unwrap_or_default().as_encoded_bytes();
        let mut id = [0; ID_BYTES];
        for (to, &from) in id.iter_mut().zip(name) {
            *to = if from.is_ascii_graphic() { from } else { b'_' };
        }
        id
    }

    fn read_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        vectored::read_at(&self.file, buffers, offset)
    }

    fn write_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        vectored::write_at(&self.file, buffers, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> io::Result<()> {
        self.allocate(FallocateFlags::PUNCH_HOLE, offset, len_bytes).map(drop)
    }

    fn write_zeroes(&self, offset: u64, len_bytes: u64, may_unmap: bool) -> io::Result<()> {
        if may_unmap && self.allocate(FallocateFlags::PUNCH_HOLE, offset, len_bytes)? {
            return Ok(());
        }
        if self.allocate(FallocateFlags::ZERO_RANGE, offset, len_bytes)? {
            return Ok(());
        }
        let mut at = offset;
        let end = offset + len_bytes;
        while at < end {
            let len = usize::try_from(end - at).map_or(ZEROES.len(), |left| left.min(ZEROES.len()));
            self.file.write_all_at(&ZEROES[..len], at)?;
            at += len as u64;
        }
        Ok(())
    }
}

fn name(kind: std::fs::FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a character device"
    }
}

impl fmt::Debug for RawImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawImage").field("path", &self.path).finish_non_exhaustive()
    }
}
