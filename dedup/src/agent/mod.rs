//! The agent: the part that lives with a VM, and the only one that touches guest memory.
//!
//! A pass (`pass`) asks what changed (`changes`), reads what has come to rest (`scan`), offers
//! it to the broker, and gives zero pages back and maps the others where the broker says
//! (`merge`), within the mapping budget (`budget`). Nothing it needs the broker for happens
//! while a page is protected.

mod attach;
pub mod budget;
mod check;
mod dirty;
mod memory;
mod merge;
mod outbox;
mod positions;
mod recovery;
mod retry_delay;
mod stats;
mod step_work;
mod unmerge;
mod visit;
pub(crate) mod walk;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;

pub(crate) use attach::prepared::Prepared;
pub(crate) use attach::process::ProcessMemory;
pub(crate) use attach::store::StoreAccess;
pub use check::MappingError;
pub use dirty::shared_changes::{ChangeConsumer, SharedChanges};
pub use dirty::tracking::{ChangeSource, Unchanging, WrittenPages};
pub use memory::layout::{LayoutChange, RelocateError, RelocateReport};
pub(crate) use merge::copy::Copying;
pub(crate) use positions::count;
pub use step_work::StepWork;
pub(crate) use unmerge::Leaving;
pub use unmerge::discard::DiscardReport;
pub(crate) use visit::pass::ScanRules;

use crate::bitmap::Bitmap;
use crate::extents::ExtentMap;
use crate::fingerprint::Secret;
use crate::mode::DedupMode;
use crate::protocol::{BrokerError, Outcome};
use crate::regions::{LayoutError, Regions};
use crate::stats::Events;
use crate::sys::{GuestMemory, RegionError, Space, UnfoldableMemory, UserfaultfdError};
use crate::workers::Workers;
use crate::{LinearIndex, VmId};
use attach::policies::PolicyRun;
use budget::deferral::Deferral;
use budget::mappings::BudgetShare;
use budget::reclaim::Reclaim;
use budget::stale_extents::StaleSearch;
use budget::{Lack, MappingBudget};
use check::breaks::OwnCopies;
use dirty::tracking::Watch;
use memory::locked::Locked;
use retry_delay::RetryDelay;
use visit::scan::Content;

/// Why a VM's memory cannot be folded. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AgentSetupError {
    /// Its regions make no sense.
    #[error("the VM's memory cannot be folded")]
    Regions(#[from] RegionError),
    /// Its regions contradict each other.
    #[error("the VM's regions cannot be laid out")]
    Layout(#[from] LayoutError),
    /// It is memory of a kind that cannot be folded.
    #[error("memory of this kind cannot be folded")]
    Unfoldable(#[from] UnfoldableMemory),
    /// Its pages cannot be protected.
    #[error("guest pages cannot be write-protected")]
    Userfaultfd(#[from] UserfaultfdError),
    /// The kernel refused to watch its memory.
    #[error("cannot prepare the VM's memory for folding")]
    Prepare(#[source] io::Error),
    /// The kernel does not tell private from shared pages.
    #[error("cannot read the page map; is /proc mounted?")]
    Pagemap(#[source] io::Error),
}

/// Why a pass ended early. Every page is in a state that the next pass handles.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The change source failed.
    #[error("cannot find out which pages changed")]
    Changes(#[source] io::Error),
    /// The page map could not be read.
    #[error("cannot scan the page map (PAGEMAP_SCAN needs Linux 6.7 or later)")]
    Pagemap(#[source] io::Error),
    /// The kernel has no memory to give pages back to themselves.
    #[error("cannot make shared pages private; is memory short?")]
    Unmerge(#[source] io::Error),
    /// The broker refused or failed.
    #[error("the broker failed")]
    Broker(#[from] BrokerError),
}

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
/// A page is in at most one of `shared`, `zero`, `waiting`, `dirty` if it changed and has not been looked
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
    undrained_dirty: Bitmap,
    dirty: Bitmap,
    shared: Bitmap,
    zero: Bitmap,
    waiting: Bitmap,
    deferred: Bitmap,
    /// Pages that are not to be folded, if there are any.
    excluded: Option<Bitmap>,
    /// Pages that were, or may have been, parts of huge ones when folding began and have stayed where they are, if
    /// any.
    huge: Option<Bitmap>,
    /// The first page of which it has not been taken in whether the source has named it.
    taken_in: usize,
    /// The first page about which the change source has not been asked by this visit.
    collected: usize,
    /// Changed pages that were taken in since they last counted as looking.
    taken_since: usize,
    /// Where the sweep for what no source names goes on.
    swept: usize,
    /// How often it has come to the end of the VM.
    sweeps: u64,
    /// Pages that checks have found it has still to find.
    own_copies: OwnCopies,
    /// Whether this visit is still to sweep.
    is_sweeping: bool,
    /// Whether what is calm is to be looked at by this visit.
    is_scanning: bool,
    /// NUMA policies that mappings of the memory are to have, where it is not the default.
    policies: Vec<PolicyRun>,
    /// Pages among which are those that could not be marked as guest memory when they were mapped.
    unmarked_memory: Option<Range<u32>>,
    /// After they could not be.
    mark_delay: RetryDelay,
    /// What of the memory cannot be shared because it is locked.
    locked: Locked,
    /// The pages that this pass is to look at.
    scan_set: Bitmap,
    /// The first of them that it has not looked at.
    cursor: usize,
    /// Those that have been read and not offered yet. They are dirty still, and whatever takes them
    /// out of that set calls it off.
    read_ahead: VecDeque<(usize, Content)>,
    /// What the step that is under way has done.
    work: StepWork,
    /// Whether pages that are not to be folded may be folded still.
    has_unwanted: bool,
    /// Where the search for pages that are to have their own memory again goes on.
    unmerge_cursor: usize,
    stale: StaleSearch,
    /// After pages could not be moved to anonymous memory.
    move_delay: RetryDelay,
    reclaim: Reclaim,
    deferral: Deferral,
    /// Pages that have changed since the mark: see [`mark`](Self::mark).
    changed_since_mark: Bitmap,
    /// Pages for which the mark is still to be set: what the change source names next of them changed
    /// before it.
    unmarked: Bitmap,
    /// Pages without such a change that there was something to do about, since last asked.
    backlog_pages: u64,
    events: Events,
    /// Pages that are to be made private, and for which there was no memory.
    unshare_retry: Vec<LinearIndex>,
    /// What the broker has not been told yet, because it failed.
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
        let page_count = space.page_count() as usize;
        let none = Bitmap::new(page_count);
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
            dirty: Bitmap::full(page_count),
            shared: none.clone(),
            zero: none.clone(),
            waiting: none.clone(),
            deferred: none.clone(),
            excluded: None,
            huge: None,
            policies,
            unmarked_memory: None,
            mark_delay: RetryDelay::default(),
            locked: Locked::default(),
            taken_in: page_count,
            collected: 0,
            taken_since: 0,
            swept: 0,
            sweeps: 0,
            own_copies: OwnCopies::default(),
            is_sweeping: false,
            is_scanning: false,
            scan_set: none.clone(),
            cursor: 0,
            read_ahead: VecDeque::new(),
            work: StepWork::default(),
            has_unwanted: false,
            unmerge_cursor: 0,
            stale: StaleSearch::default(),
            move_delay: RetryDelay::default(),
            reclaim: Reclaim::default(),
            deferral: Deferral::default(),
            unmarked: none.clone(),
            changed_since_mark: none,
            backlog_pages: 0,
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

    /// Has pages that change from now on not count as backlog: what a guest goes on writing can
    /// never all be folded.
    pub(crate) fn mark(&mut self) {
        self.unmarked.insert_range(0..self.unmarked.len());
    }

    /// How many pages there was something to do about, since last asked, that have not changed
    /// since the mark.
    pub(crate) fn take_backlog(&mut self) -> u64 {
        // Mappings that are about to be given back may pay for what was put off.
        std::mem::take(&mut self.backlog_pages) + u64::from(self.stale.is_promising())
    }

    /// Counts pages that there was something to do about.
    fn note_work(&mut self, pages: std::ops::Range<usize>) {
        let unchanged = pages.len() - self.changed_since_mark.count_within(pages);
        self.backlog_pages += unchanged as u64;
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
