//! The agent: the part that there is one of for each VM, and the only one that touches guest memory.
//!
//! A pass (`visit`) collects what changed (`dirty`), reads what is unchanged since the last one, offers
//! it to the broker, and gives zero pages back and maps the others to the slots that the broker names
//! (`merge`), within the mapping budget (`budget`). Nothing it needs the broker for happens
//! while a page is protected.
//!
//! | module | what |
//! |---|---|
//! | `attach` | what is needed before any page is folded: memory that can be, policies, descriptors, the store |
//! | `dirty` | change sources, and which pages they, or a sweep, have found written |
//! | `visit` | a VM's part of a pass: reading pages and offering them |
//! | `merge` | runs of pages that are compared and mapped under write protection; directives |
//! | `unmerge` | pages that get their own memory again, and memory that is given up |
//! | `budget` | VMAs: what they cost, who may have them, and how they come back |
//! | `memory` | mode, layout, locks and huge pages of a VM's memory |
//! | `check` | an agent's state, against the kernel's page map and mappings |
//! | `outbox` | outcomes for the broker, each reported once |

mod attach;
mod backlog;
pub(crate) mod budget;
mod check;
mod dirty;
mod error;
mod memory;
mod merge;
mod outbox;
mod recovery;
mod retry_delay;
mod stats;
mod step_work;
mod stretch;
mod unmerge;
mod visit;
pub(crate) mod walk;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

pub(crate) use attach::prepared::Prepared;
pub(crate) use attach::process::ProcessMemory;
pub(crate) use attach::store::StoreAccess;
pub use check::MappingError;
pub use dirty::shared_changes::{ChangeConsumer, SharedChanges};
pub use dirty::tracking::{ChangeSource, Unchanging, WrittenPages};
pub use error::{AgentError, AgentSetupError};
pub use memory::layout::{LayoutChange, RelocateError, RelocateReport};
pub(crate) use merge::copy::Copying;
pub use step_work::StepWork;
pub(crate) use unmerge::Leaving;
pub use unmerge::discard::DiscardReport;
pub(crate) use visit::pass::ScanRules;

use crate::extents::ExtentMap;
use crate::fingerprint::Secret;
use crate::mode::DedupMode;
use crate::page_set::PageSet;
use crate::protocol::Outcome;
use crate::regions::Regions;
use crate::stats::Events;
use crate::sys::{GuestMemory, Space};
use crate::workers::Workers;
use crate::{LinearIndex, VmId};
use attach::policies::PolicyRun;
use backlog::Backlog;
use budget::deferral::Deferral;
use budget::mappings::BudgetShare;
use budget::reclaim::Reclaim;
use budget::stale_extents::StaleSearch;
use budget::{Lack, MappingBudget};
use check::breaks::OwnCopies;
use dirty::tracking::Watch;
use memory::locked::Locked;
use retry_delay::RetryDelay;
use visit::Visit;

/// What an agent needs to begin.
pub(crate) struct AgentSpec {
    pub(crate) vm: VmId,
    pub(crate) mode: DedupMode,
    pub(crate) memory: Arc<dyn GuestMemory>,
    pub(crate) changes: Box<dyn ChangeSource>,
    pub(crate) process: Arc<ProcessMemory>,
    pub(crate) store: Arc<StoreAccess>,
    pub(crate) secret: Secret,
    pub(crate) budget: Arc<MappingBudget>,
    pub(crate) workers: Arc<Workers>,
}

/// One VM's memory, and what is known of each of its pages.
///
/// A page is in at most one of `shared`, `zero`, `offered`, `dirty` if it changed and has not been looked
/// at since, and `deferred` if it would be shared were there mappings to spare: then another
/// may fill a slot for it, and it may be in the broker's trees until it is.
pub(crate) struct Agent {
    vm: VmId,
    mode: DedupMode,
    space: Space,
    /// Where the guest sees which page.
    regions: Regions,
    changes: Watch,
    process: Arc<ProcessMemory>,
    store: Arc<StoreAccess>,
    secret: Secret,
    budget: Arc<MappingBudget>,
    workers: Arc<Workers>,
    extents: ExtentMap,
    /// What the VM's memory counts for in the budget.
    vmas: u64,
    share: BudgetShare,
    /// Pages at which the kernel begins a mapping although the extents would allow for one with the
    /// page before.
    seams: BTreeSet<LinearIndex>,
    /// Pages that the change source has named and no pass has taken in yet.
    undrained_dirty: PageSet,
    dirty: PageSet,
    shared: PageSet,
    zero: PageSet,
    offered: PageSet,
    deferred: PageSet,
    /// Pages that are not to be folded, if there are any.
    excluded: Option<PageSet>,
    /// Pages that were, or may have been, parts of huge ones when folding began and have stayed where they are, if
    /// any.
    huge: Option<PageSet>,
    /// Where the sweep for what no source names goes on.
    swept: LinearIndex,
    /// How often it has come to the end of the VM, modulo 2^32.
    sweeps: u32,
    /// Pages that checks have found it has still to find.
    own_copies: OwnCopies,
    /// NUMA policies that mappings of the memory are to have, where it is not the default.
    policies: Vec<PolicyRun>,
    /// Pages among which are those that could not be marked as guest memory when they were mapped.
    unmarked_memory: Option<Range<LinearIndex>>,
    /// After they could not be.
    mark_delay: RetryDelay,
    /// What of the memory cannot be shared because it is locked.
    locked: Locked,
    visit: Visit,
    /// What the step that is under way has done.
    work: StepWork,
    /// Whether pages that are not to be folded may be folded still.
    has_unwanted: bool,
    /// Where the search for pages that are to have their own memory again goes on.
    unmerge_cursor: LinearIndex,
    stale: StaleSearch,
    /// After pages could not be moved to anonymous memory.
    move_delay: RetryDelay,
    reclaim: Reclaim,
    deferral: Deferral,
    backlog: Backlog,
    events: Events,
    /// Pages that are to be made private, and for which there was no memory.
    unshare_retry: Vec<LinearIndex>,
    /// Outcomes that the broker has not received yet, because it failed.
    unreported: Vec<Outcome>,
}

impl Agent {
    /// Takes charge of a VM's memory. Every page counts as changed.
    ///
    /// # Errors
    ///
    /// When the memory or the kernel does not allow it; no byte of the memory has changed.
    pub(crate) fn new(spec: AgentSpec) -> Result<Self, AgentSetupError> {
        let AgentSpec { vm, mode, memory, changes, process, store, secret, budget, workers } = spec;
        let Prepared { space, regions, policies } = Prepared::new(&memory, &process)?;
        let page_count = space.page_count();
        let none = PageSet::new(page_count);
        let mut agent = Self {
            vm,
            mode,
            space,
            regions,
            changes: Watch { source: changes, is_on: true },
            process,
            store,
            secret,
            budget,
            workers,
            extents: ExtentMap::default(),
            vmas: 0,
            share: BudgetShare::None,
            seams: BTreeSet::new(),
            undrained_dirty: none.clone(),
            dirty: PageSet::full(page_count),
            shared: none.clone(),
            zero: none.clone(),
            offered: none.clone(),
            deferred: none,
            excluded: None,
            huge: None,
            policies,
            unmarked_memory: None,
            mark_delay: RetryDelay::default(),
            locked: Locked::default(),
            swept: LinearIndex(0),
            sweeps: 0,
            own_copies: OwnCopies::default(),
            visit: Visit::new(page_count),
            work: StepWork::default(),
            has_unwanted: false,
            unmerge_cursor: LinearIndex(0),
            stale: StaleSearch::default(),
            move_delay: RetryDelay::default(),
            reclaim: Reclaim::default(),
            deferral: Deferral::default(),
            backlog: Backlog::new(page_count),
            events: Events::default(),
            unshare_retry: Vec::new(),
            unreported: Vec::new(),
        };
        agent.find_huge_pages()?;
        agent.recount_mappings();
        Ok(agent)
    }

    /// Calls the VM by another number from now on, as its broker does.
    pub(crate) fn rename(&mut self, vm: VmId) {
        let vmas = self.vmas;
        self.count_mappings(0);
        self.vm = vm;
        self.count_mappings(vmas);
    }

    /// Has the agent do a part of a step, which is added to what the step did before.
    pub(crate) fn count_in<T>(
        &mut self,
        step: &mut StepWork,
        task: impl FnOnce(&mut Self) -> T,
    ) -> T {
        self.work = *step;
        let result = task(self);
        *step = std::mem::take(&mut self.work);
        result
    }

    pub(crate) fn events(&self) -> &Events {
        &self.events
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.set_lack(Lack::Nothing);
        self.count_mappings(0);
    }
}

#[cfg(test)]
mod tests;
