//! The initrd's file, and where it goes.

use std::fs::File;
use std::path::{Path, PathBuf};

use pagefold_dedup::PAGE_SIZE;
use vm_memory::{Bytes, GuestAddress};

use super::LinuxError;
use super::kernel::open_file;
use super::memory_map::low_memory_end;
use crate::memory::{GuestRam, MemoryLayout};

/// What errors call it.
const WHAT: &str = "initrd";

/// An initrd.
pub(super) struct Initrd {
    file: File,
    path: PathBuf,
    len_bytes: u64,
}

impl Initrd {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is empty.
    pub(super) fn open(path: &Path) -> Result<Self, LinuxError> {
        let (file, len_bytes) = open_file(WHAT, path)?;
        Ok(Self { file, path: path.to_owned(), len_bytes })
    }

    /// Its size.
    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Where it goes: as high as it may, below the hole and below `limit`, above the kernel.
    ///
    /// # Errors
    ///
    /// When there is no room.
    pub(super) fn place(
        &self,
        layout: MemoryLayout,
        kernel_end: u64,
        limit: u64,
    ) -> Result<u64, LinuxError> {
        let limit = low_memory_end(layout).min(limit);
        let page_bytes = PAGE_SIZE as u64;
        let address =
            limit.checked_sub(self.len_bytes).map(|start| start / page_bytes * page_bytes);
        address.filter(|&address| address >= kernel_end).ok_or_else(|| {
            LinuxError::InitrdDoesNotFit {
                path: self.path.clone(),
                initrd_bytes: self.len_bytes,
                kernel_end,
                limit,
            }
        })
    }

    /// Reads it into memory.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or has become shorter.
    pub(super) fn load(&mut self, ram: &GuestRam, address: u64) -> Result<(), LinuxError> {
        let failed = |source| LinuxError::Read {
            what: WHAT,
            path: self.path.clone(),
            source: std::io::Error::other(source),
        };
        let len = usize::try_from(self.len_bytes).map_err(|error| failed(error.to_string()))?;
        ram.memory()
            .read_exact_volatile_from(GuestAddress(address), &mut self.file, len)
            .map_err(|error| failed(error.to_string()))
    }
}
