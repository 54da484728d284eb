//! The command line.

use vm_memory::{Bytes, GuestAddress};

use super::LinuxError;
use crate::loader::WriteError;
use crate::memory::GuestRam;

/// Where it lies: below video memory, above page tables.
const ADDRESS: u64 = 0x2_0000;

/// A command line that a kernel takes.
pub(super) struct Cmdline<'text>(&'text str);

impl<'text> Cmdline<'text> {
    /// A command line for a kernel that takes `max` bytes, without the zero at its end.
    ///
    /// # Errors
    ///
    /// When it is longer, or has a zero within.
    pub(super) fn new(text: &'text str, max: usize) -> Result<Self, LinuxError> {
        if let Some(position) = text.bytes().position(|byte| byte == 0) {
            return Err(LinuxError::CmdlineZero { position });
        }
        if text.len() > max {
            return Err(LinuxError::CmdlineTooLong { found: text.len(), max });
        }
        Ok(Self(text))
    }

    /// Writes it to memory that is still zero, and returns its address.
    ///
    /// # Errors
    ///
    /// When there is no memory.
    pub(super) fn write(&self, ram: &GuestRam) -> Result<u64, WriteError> {
        let what = "kernel's command line";
        ram.memory()
            .write_slice(self.0.as_bytes(), GuestAddress(ADDRESS))
            .map_err(|source| WriteError { what, address: ADDRESS, source })?;
        Ok(ADDRESS)
    }
}
