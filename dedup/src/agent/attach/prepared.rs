//! A VM's memory made ready to be folded, or refused.

use std::sync::Arc;

use super::policies::{PolicyRun, policies_of};
use crate::agent::{AgentSetupError, ProcessMemory};
use crate::regions::Regions;
use crate::sys::{GuestMemory, Space};

/// Memory that can be folded, and is marked and registered for it.
pub(crate) struct Prepared {
    pub(in crate::agent) space: Space,
    pub(in crate::agent) regions: Regions,
    pub(in crate::agent) policies: Vec<PolicyRun>,
}

impl Prepared {
    /// Finds out whether memory can be folded, and marks and registers it if so. No byte of it changes. It
    /// may be done again. O(mappings of the memory).
    ///
    /// # Errors
    ///
    /// When the memory or the kernel does not allow it. Some of it may be marked: kept from children and
    /// core dumps, and without huge pages.
    pub(crate) fn new(
        memory: &Arc<dyn GuestMemory>,
        process: &ProcessMemory,
    ) -> Result<Self, AgentSetupError> {
        let space = Space::new(Arc::clone(memory))?;
        let regions = Regions::of(memory.regions())?;
        let mut policies = Vec::new();
        for piece in space.pieces() {
            let span = space.whole(piece);
            let mappings = span.check_foldable(process.bounds.as_ref())?;
            policies.extend(policies_of(piece, span.start(), &mappings));
        }
        for piece in space.pieces() {
            let span = space.whole(piece);
            span.advise_guest()
                .and_then(|()| process.uffd.register(span))
                .map_err(AgentSetupError::Prepare)?;
        }
        Ok(Self { space, regions, policies })
    }

    /// How many pages it has.
    pub(crate) fn page_count(&self) -> u32 {
        self.space.page_count()
    }
}
