//! What one process needs of the kernel to fold its memory, whoever's memory it is.

use std::error::Error;
use std::sync::{Arc, Once, OnceLock};

use crate::agent::AgentSetupError;
use crate::sys::{
    Faults, LateSleepers, MappingBounds, PageMover, Pagemap, SpareMapping, UnfoldableMemory,
    Userfaultfd, UserfaultfdError, locks_new_mappings,
};

/// Descriptors that all agents of a process share: guests come in hundreds, and a process may
/// have 1024 descriptors by default.
#[derive(Debug)]
pub(crate) struct ProcessMemory {
    pub(in crate::agent) uffd: Arc<Userfaultfd>,
    _late_sleepers: LateSleepers,
    pub(in crate::agent) pagemap: Pagemap,
    /// Unless the kernel is too old to report them.
    pub(in crate::agent) bounds: Option<MappingBounds>,
    /// For giving mappings up when there are too many.
    pub(in crate::agent) spare: SpareMapping,
    /// Made when it is first needed.
    page_mover: OnceLock<PageMover>,
    /// For saying once that it could not be made.
    no_mover: Once,
}

impl ProcessMemory {
    /// Opens the calling process's, for memory that the kernel writes on its behalf, or only for memory
    /// that it does not, if more is not permitted.
    ///
    /// # Errors
    ///
    /// When the process may not, or the kernel is too old; nothing is left open.
    pub(crate) fn open(is_written_by_kernel: bool) -> Result<Self, AgentSetupError> {
        let uffd = match Userfaultfd::new(Faults::All) {
            Err(UserfaultfdError::Open(_)) if !is_written_by_kernel => {
                Userfaultfd::new(Faults::OfUser)
            }
            result => result,
        }?;
        let uffd = Arc::new(uffd);
        let late_sleepers = LateSleepers::wake(&uffd).map_err(AgentSetupError::Prepare)?;
        let pagemap = Pagemap::open().map_err(AgentSetupError::Pagemap)?;
        let bounds = MappingBounds::open().map_err(AgentSetupError::Pagemap)?;
        let spare = SpareMapping::new();
        Ok(Self {
            uffd,
            _late_sleepers: late_sleepers,
            pagemap,
            bounds,
            spare,
            page_mover: OnceLock::new(),
            no_mover: Once::new(),
        })
    }

    /// Whether so written memory can be folded with it.
    pub(crate) fn covers(&self, is_written_by_kernel: bool) -> bool {
        !is_written_by_kernel || self.uffd.faults() == Faults::All
    }

    /// Finds out whether what is mapped can be shared.
    ///
    /// # Errors
    ///
    /// When the process locks whatever it maps, or that cannot be found out.
    pub(crate) fn check_foldable() -> Result<(), UnfoldableMemory> {
        match locks_new_mappings() {
            Ok(false) => Ok(()),
            Ok(true) => Err(UnfoldableMemory::LocksNewMappings),
            Err(error) => Err(UnfoldableMemory::Read(error)),
        }
    }

    /// What makes pages over slots anonymous memory again; `None` where the kernel cannot (before Linux
    /// 6.8), or has no descriptor or thread left, which is tried again by the next call.
    pub(in crate::agent) fn page_mover(&self) -> Option<&PageMover> {
        if let Some(mover) = self.page_mover.get() {
            return Some(mover);
        }
        match PageMover::new(self.uffd.faults()) {
            Ok(mover) => Some(self.page_mover.get_or_init(|| mover)),
            Err(error) => {
                self.no_mover.call_once(|| {
                    log::warn!("mappings are not given back: {error}: {:?}", error.source());
                });
                None
            }
        }
    }
}
