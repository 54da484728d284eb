//! The reverse walk: from a slot to every guest mapping of it, and from a guest's address to its
//! page.
//!
//! A walk goes from the slot to the pages that share it, and from each of those to the regions that
//! contain exactly its linear index. What it costs is set by the mappings it finds, not by the
//! regions that VMs have: KSM's walk from 0 to `ULONG_MAX` visited 22,169 intervals in 228 ms for
//! a single page.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::Engine;
use crate::agent::walk::{Mapping, PageState};
use crate::protocol::{Admin, BATCH};
use crate::{LinearIndex, Slot, VmId};

/// Why nothing was walked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WalkError {
    /// No VM is in the domain.
    #[error("there is no domain '{0}'")]
    NoDomain(String),
    /// The slot has no bytes that anybody could share.
    #[error("slot {slot:?} of domain '{domain}' holds nothing")]
    EmptySlot {
        /// The domain.
        domain: String,
        /// The slot.
        slot: Slot,
    },
}

/// What a walk came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalkReport {
    /// Pages that share the slot and were looked up.
    pub items: u64,
    /// Mappings handed to the visitor.
    pub mappings: u64,
    /// Regions visited: what the kernel counts as iterations of its interval tree.
    pub intervals_visited: u64,
    /// Nodes of interval trees that were looked at to find them.
    pub nodes_visited: u64,
    /// Whether the visitor ended the walk.
    pub stopped: bool,
}

/// A page, found by its guest-physical address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundPage {
    /// Whom its VM shares with.
    pub domain: String,
    /// The page.
    pub linear: LinearIndex,
    /// What has become of it.
    pub state: PageState,
}

impl Engine {
    /// Calls `visit` with each guest mapping of a slot until it breaks. At most `max_page_sharing`
    /// pages, and O(log regions) for each mapping.
    ///
    /// A page that was written since its VM's last pass, and so has its own copy, is still named:
    /// whoever is going to change a mapping protects and compares it first.
    ///
    /// # Errors
    ///
    /// When there is no such domain, or nothing in the slot; `visit` was not called.
    pub fn walk(
        &self,
        domain: &str,
        slot: Slot,
        mut visit: impl FnMut(&Mapping) -> ControlFlow<()>,
    ) -> Result<WalkReport, WalkError> {
        let Some(broker) = self.domains.get(domain).map(|domain| &domain.broker) else {
            return Err(WalkError::NoDomain(domain.to_owned()));
        };
        let mut report = WalkReport::default();
        let flow = visit_sharers(&**broker, slot, |vm, linear| {
            report.items += 1;
            let Some(member) = self.members.get(&vm) else {
                // Its memory could not be taken off the store when it ended: see `detach`.
                return ControlFlow::Continue(());
            };
            let visits = member.agent.mappings(linear, |mapping| {
                report.mappings += 1;
                visit(mapping)
            });
            report.intervals_visited += visits.intervals;
            report.nodes_visited += visits.nodes;
            if visits.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match flow {
            Some(flow) => Ok(WalkReport { stopped: flow.is_break(), ..report }),
            None => Err(WalkError::EmptySlot { domain: domain.to_owned(), slot }),
        }
    }

    /// The page that a VM's guest sees at an address, or `None` when the VM is not attached or has
    /// no memory there. O(log regions).
    pub fn find(&self, vm: VmId, gpa: u64) -> Option<FoundPage> {
        let member = self.members.get(&vm)?;
        let linear = member.agent.page_at(gpa)?;
        let state = member.agent.page_state(linear);
        Some(FoundPage { domain: member.domain.clone(), linear, state })
    }
}

/// Pages that a walk fetches at first: nothing is allocated for a slot with fewer sharers.
const FIRST_SHARERS: usize = 16;

/// Calls `visit` with each page that shares a slot until it breaks; returns whether it did, or `None` when the
/// slot holds nothing. O(sharers), or at most a batch of them more than are visited.
fn visit_sharers(
    broker: &dyn Admin,
    slot: Slot,
    mut visit: impl FnMut(VmId, LinearIndex) -> ControlFlow<()>,
) -> Option<ControlFlow<()>> {
    const NO_PAGE: (VmId, LinearIndex) = (VmId(0), LinearIndex(0));
    let (mut first, mut further) = ([NO_PAGE; FIRST_SHARERS], Vec::new());
    let (mut pages, mut after) = (&mut first[..], None);
    loop {
        let count = broker.slot_sharers(slot, after, pages)?;
        let flow = pages[..count].iter().try_for_each(|&(vm, linear)| visit(vm, linear));
        if flow.is_break() || count < pages.len() {
            return Some(flow);
        }
        after = pages.last().copied();
        further.resize(BATCH, NO_PAGE);
        pages = &mut further;
    }
}

/// The pages that share a slot.
pub(super) fn sharers_of(broker: &dyn Admin, slot: Slot) -> Vec<(VmId, LinearIndex)> {
    let mut pages = Vec::new();
    let _ = visit_sharers(broker, slot, |vm, linear| {
        pages.push((vm, linear));
        ControlFlow::Continue(())
    });
    pages
}
