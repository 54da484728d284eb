//! The engine: all agents of a process, and the brokers of their domains.
//!
//! It is plain data that its owner drives: each [`pass`](Engine::pass) visits every VM once. What
//! runs it, and how often, is the owner's choice.

mod advisor;
mod check;
mod clone;
#[cfg(test)]
mod collisions;
mod cycle;
mod detach;
mod discard;
mod error;
mod explain;
mod factory;
mod knobs;
mod layout;
mod leave;
mod mode;
mod moves;
mod recover;
mod report;
mod round;
mod settle;
mod stats;
mod trim;
mod unwanted;
mod walk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use advisor::Advisor;
#[cfg(test)]
pub(crate) use check::agree;
pub use clone::{CloneError, Cloning};
use cycle::Cycle;
pub use cycle::Step;
use detach::Detach;
pub use detach::{DetachError, Detaching};
pub use discard::Discarding;
pub use error::{AttachError, CheckError, EngineError};
pub use explain::{Dup, Explanation, Reason, Sharer};
use factory::{BrokerFactory, DomainSpec, LocalFactory};
pub use layout::LayoutChangeError;
pub use leave::Leave;
use leave::Leaver;
pub use mode::PagesError;
pub use moves::{CompactReport, Compaction, MoveReport, MoveSlotError};
pub use recover::{RecoveryReport, RecoverySource};
pub use report::PassReport;
use round::Round;
pub use settle::{SettleReport, Settling};
use unwanted::Unwanted;
pub use walk::{FoundPage, WalkError, WalkReport};

use crate::agent::budget::MappingBudget;
use crate::agent::{Agent, AgentSetupError, AgentSpec, ProcessMemory, StepWork, StoreAccess};
use crate::config::{EngineConfig, STEP_TIME, default_store_pages};
use crate::knobs::Knobs;
use crate::mode::DedupMode;
use crate::protocol::DomainBroker;
use crate::stats::Events;
use crate::sys::GuestMemory;
use crate::workers::Workers;
use crate::{ChangeSource, VmId};

/// A VM to be folded.
pub struct AttachSpec {
    /// Who it may share with: VMs of the same name, and nobody else.
    pub domain: String,
    /// How much of it is folded.
    pub mode: DedupMode,
    /// Its memory.
    pub memory: Arc<dyn GuestMemory>,
    /// What reports which of its pages have changed.
    pub changes: Box<dyn ChangeSource>,
}

struct Domain {
    broker: Box<dyn DomainBroker>,
    store: Arc<StoreAccess>,
}

struct Member {
    /// How many VMs had been attached before it: numbers of VMs are used again.
    serial: u64,
    domain: String,
    agent: Agent,
    /// Whether it is being detached.
    detach: Option<Detach>,
}

/// All folding of one process.
pub struct Engine {
    // Before the domains, so that memory is dropped before the stores under it.
    members: BTreeMap<VmId, Member>,
    /// VMs that have ended, but whose memory may still lie over slots.
    leavers: Vec<Leaver>,
    /// VMs that have been attached.
    attached_count: u64,
    domains: BTreeMap<String, Domain>,
    factory: Box<dyn BrokerFactory>,
    workers: Arc<Workers>,
    /// Opened for the first VM: without VMs an engine needs no permissions.
    process: Option<Arc<ProcessMemory>>,
    budget: Arc<MappingBudget>,
    store_pages: u32,
    /// What a step may take before it begins nothing more.
    step_time: Duration,
    knobs: Knobs,
    advisor: Advisor,
    /// The pass that is under way.
    cycle: Option<Cycle>,
    /// The visit of all VMs that is under way while `run` is 0.
    round: Option<Round>,
    unwanted: Unwanted,
    last_step: StepWork,
    /// When chains were last looked through for dups to join.
    dups_joined_at: Instant,
    full_scans: u64,
    /// Events of VMs that are gone.
    past: Events,
}

impl Engine {
    /// Makes an engine without VMs.
    ///
    /// # Errors
    ///
    /// When a limit's or a knob's value makes no sense, threads cannot be started, or `/proc` cannot be read.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        config.check_limits()?;
        config.knobs.check().map_err(EngineError::Knobs)?;
        let store_pages = match config.store_pages {
            Some(pages) => pages,
            None => default_store_pages().map_err(EngineError::Limits)?,
        };
        let budget = match config.max_mappings {
            Some(limit) => MappingBudget::new(limit),
            None => MappingBudget::of_process().map_err(EngineError::Limits)?,
        };
        Ok(Self {
            members: BTreeMap::new(),
            leavers: Vec::new(),
            attached_count: 0,
            domains: BTreeMap::new(),
            factory: Box::new(LocalFactory),
            workers: Arc::new(Workers::new(config.thread_count).map_err(EngineError::Threads)?),
            process: None,
            budget: Arc::new(budget),
            store_pages,
            step_time: config.step_time.unwrap_or(STEP_TIME),
            knobs: config.knobs,
            advisor: Advisor::default(),
            cycle: None,
            round: None,
            unwanted: Unwanted::default(),
            last_step: StepWork::default(),
            dups_joined_at: Instant::now(),
            full_scans: 0,
            past: Events::default(),
        })
    }

    /// Begins to fold a VM. Its memory may be in use already, but not by another VM that is
    /// attached. O(pages that are there, which are read from the page map, some 0.03 µs each, + pages / 64 + its
    /// regions × the regions of all VMs).
    ///
    /// # Errors
    ///
    /// When the domain cannot be made, the VM is attached already, memory of an attached VM is at
    /// the addresses of its own, or its memory does not allow it.
    pub fn attach(&mut self, vm: VmId, spec: AttachSpec) -> Result<(), AttachError> {
        let AttachSpec { domain: name, mode, memory, changes } = spec;
        self.make_way(vm, &*memory)?;
        self.free_number(vm);
        let page_count: u64 =
            memory.regions().iter().map(|region| u64::from(region.page_count)).sum();
        let process = self.process(vm, memory.is_written_by_kernel())?;
        // Before anything is mapped: a store that is locked would take all of the host's memory.
        let unfoldable = |source| AttachError::Agent { vm, source: AgentSetupError::from(source) };
        ProcessMemory::check_foldable().map_err(unfoldable)?;
        let domain = self.domain(&name)?;
        // More pages than an index can number are refused by the agent; no item is made for them.
        let page_count = u32::try_from(page_count).unwrap_or(u32::MAX);
        if let Err(source) = domain.broker.register(vm, page_count) {
            let error = AttachError::Broker { vm, domain: name.clone(), source };
            self.drop_if_empty(&name);
            return Err(error);
        }
        let (store, secret) = (Arc::clone(&domain.store), domain.broker.secret());
        let (budget, workers) = (Arc::clone(&self.budget), Arc::clone(&self.workers));
        let spec = AgentSpec { vm, mode, memory, changes, process, store, secret, budget, workers };
        match Agent::new(spec) {
            Ok(agent) => {
                let serial = self.attached_count;
                self.attached_count += 1;
                self.members.insert(vm, Member { serial, domain: name, agent, detach: None });
                Ok(())
            }
            Err(source) => {
                self.forget(vm, &name);
                Err(AttachError::Agent { vm, source })
            }
        }
    }

    /// Sees to it that no VM has a number, or memory, that is to be another's.
    fn make_way(&mut self, vm: VmId, memory: &dyn GuestMemory) -> Result<(), AttachError> {
        if self.members.contains_key(&vm) {
            return Err(AttachError::Attached(vm));
        }
        let mut members = self.members.iter();
        if let Some((&occupant, _)) = members.find(|(_, member)| member.agent.is_at(memory)) {
            return Err(AttachError::Occupied { vm, occupant });
        }
        self.leave_from(memory);
        if let Some(occupant) = self.leaver_at(memory) {
            return Err(AttachError::Occupied { vm, occupant });
        }
        Ok(())
    }

    /// Begins to distinguish unchanged pages from those that keep changing: what changes from now on does
    /// not count as backlog. O(pages / 64).
    pub fn mark(&mut self) {
        for member in self.members.values_mut() {
            member.agent.mark();
        }
    }

    /// Passes until everything is folded that is unchanged since the beginning, or until
    /// `limit` is over, with `interval` between passes, in which running VMs show which of their
    /// pages keep changing.
    #[must_use = "says whether time was up before everything was folded"]
    pub fn settle(&mut self, limit: Duration, interval: Duration) -> SettleReport {
        self.mark();
        let mut settling = Settling::new(limit);
        if self.is_in_pass() {
            // What changed after it came by is not work that it would find.
            self.pass();
        }
        loop {
            if let Some(report) = settling.note(&self.pass()) {
                return report;
            }
            std::thread::sleep(interval.min(settling.time_left()));
        }
    }

    /// The VMs that are attached.
    pub fn vms(&self) -> impl Iterator<Item = VmId> + '_ {
        self.members.keys().copied()
    }

    fn process(
        &mut self,
        vm: VmId,
        is_written_by_kernel: bool,
    ) -> Result<Arc<ProcessMemory>, AttachError> {
        if let Some(process) = &self.process
            && process.covers(is_written_by_kernel)
        {
            return Ok(Arc::clone(process));
        }
        let process = ProcessMemory::open(is_written_by_kernel)
            .map_err(|source| AttachError::Agent { vm, source })?;
        Ok(Arc::clone(self.process.insert(Arc::new(process))))
    }

    fn domain(&mut self, name: &str) -> Result<&mut Domain, AttachError> {
        if !self.domains.contains_key(name) {
            let spec = DomainSpec {
                store_pages: self.store_pages,
                max_page_sharing: self.knobs.max_page_sharing,
                merge_across_nodes: self.knobs.merge_across_nodes,
                workers: Arc::clone(&self.workers),
            };
            let domain = self.factory.make(name, spec)?;
            self.domains.insert(name.to_owned(), domain);
        }
        match self.domains.get_mut(name) {
            Some(domain) => Ok(domain),
            None => unreachable!("the domain was just made"),
        }
    }

    /// Drops a VM from its domain's broker, and the domain with its last VM.
    fn forget(&mut self, vm: VmId, name: &str) {
        let Some(domain) = self.domains.get_mut(name) else {
            return;
        };
        if let Err(error) = domain.broker.unregister(vm) {
            log::error!("VM {vm}: {error}");
        }
        self.drop_if_empty(name);
    }

    fn drop_if_empty(&mut self, name: &str) {
        if self.domains.get(name).is_some_and(|domain| domain.broker.vm_count() == 0) {
            self.domains.remove(name);
        }
    }
}
