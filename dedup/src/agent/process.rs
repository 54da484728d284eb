//! What one process needs of the kernel to fold its memory, whoever's memory it is.

use super::AgentSetupError;
use crate::sys::{MappingBounds, Pagemap, Userfaultfd};

/// Descriptors that all agents of a process share: guests come in hundreds, and a process may
/// have 1024 descriptors by default.
#[derive(Debug)]
pub(crate) struct ProcessMemory {
    pub(super) uffd: Userfaultfd,
    pub(super) pagemap: Pagemap,
    /// Unless the kernel is too old to say.
    pub(super) bounds: Option<MappingBounds>,
}

impl ProcessMemory {
    /// Opens the calling process's.
    ///
    /// # Errors
    ///
    /// When the process may not, or the kernel is too old; nothing is left open.
    pub(crate) fn open() -> Result<Self, AgentSetupError> {
        let uffd = Userfaultfd::new()?;
        let pagemap = Pagemap::open().map_err(AgentSetupError::Pagemap)?;
        let bounds = MappingBounds::open().map_err(AgentSetupError::Pagemap)?;
        Ok(Self { uffd, pagemap, bounds })
    }
}
