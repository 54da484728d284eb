//! The agent's half of the reverse walk: from a page to where the guest sees it, and back.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::Agent;
use crate::extents::ExtentMap;
use crate::regions::Visits;
use crate::{LinearIndex, PAGE_SIZE, Slot, VmId};

/// A place where a guest sees a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapping {
    /// The guest's VM.
    pub vm: VmId,
    /// The page.
    pub linear: LinearIndex,
    /// Where the guest sees it, in bytes.
    pub gpa: u64,
    /// Where this process sees it, in bytes.
    pub host_addr: usize,
}

/// What folding has made of a page, as of its VM's last pass. In JSON always an object with a `kind`,
/// and the slot as `detail` where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "detail", rename_all = "snake_case")]
pub enum PageState {
    /// It shares a slot.
    Shared(Slot),
    /// It is zero and was given back.
    Zero,
    /// It is unchanged since the last pass, was offered, and shares nothing: KSM counts such in `pages_unshared`.
    Unshared,
    /// It has a twin and would be shared if there were mappings to spare.
    Deferred,
    /// It changed and has not been looked at since.
    Volatile,
    /// None of these: it is not there, or its VM's mode does not let it be shared.
    Loose,
}

impl Agent {
    /// Calls `visit` with each place where the guest sees a page, until it breaks. O(log regions)
    /// for each.
    pub(crate) fn mappings(
        &self,
        linear: LinearIndex,
        mut visit: impl FnMut(&Mapping) -> ControlFlow<()>,
    ) -> Visits {
        self.regions.stab(linear, |region| {
            let skip_bytes = (linear.0 - region.linear.0) as usize * PAGE_SIZE;
            visit(&Mapping {
                vm: self.vm,
                linear,
                gpa: region.gpa + skip_bytes as u64,
                host_addr: region.host_addr + skip_bytes,
            })
        })
    }

    /// The page that the guest sees at an address. O(log regions).
    pub(crate) fn page_at(&self, gpa: u64) -> Option<LinearIndex> {
        self.regions.at_guest(gpa).map(|(_, linear)| linear)
    }

    /// What has become of a page, which must be one of the VM's.
    pub(crate) fn page_state(&self, linear: LinearIndex) -> PageState {
        match self.extents.slot(linear).filter(|_| self.shared.contains(linear)) {
            Some(slot) => PageState::Shared(slot),
            None if self.zero.contains(linear) => PageState::Zero,
            None if self.offered.contains(linear) => PageState::Unshared,
            None if self.deferred.contains(linear) => PageState::Deferred,
            None if self.dirty.contains(linear) => PageState::Volatile,
            None => PageState::Loose,
        }
    }

    /// Which pages lie over which slots.
    pub(crate) fn extents(&self) -> &ExtentMap {
        &self.extents
    }

    /// Whether the broker has received all outcomes.
    pub(crate) fn has_reported(&self) -> bool {
        self.unreported.is_empty()
    }
}
