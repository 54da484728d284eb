//! The engine: all agents of a process, and the brokers of their domains.
//!
//! It is plain data that its owner drives: each [`pass`](Engine::pass) visits every VM once. What
//! runs it, and how often, is the owner's choice.

mod advisor;
mod clone;
mod config;
mod cpu;
mod cycle;
mod discard;
mod explain;
mod knobs;
mod layout;
mod mode;
mod moves;
mod recover;
mod report;
mod settle;
mod walk;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use advisor::Advisor;
pub use clone::CloneError;
pub use config::EngineConfig;
use cpu::Workers;
use cycle::Cycle;
pub use cycle::Step;
pub use explain::{Dup, Explanation, Reason, Sharer};
pub use layout::LayoutChangeError;
pub use mode::PagesError;
pub use moves::{CompactReport, Compaction, MoveReport, MoveSlotError};
pub use recover::{RecoveryReport, RecoverySource};
pub use report::PassReport;
pub use settle::{SettleReport, Settling};
pub use walk::{FoundPage, WalkError, WalkReport};

use crate::agent::budget::MappingBudget;
use crate::agent::{Agent, AgentSetupError, AgentSpec, MappingError, ProcessMemory, StoreAccess};
use crate::broker::{DomainError, IndexError, LocalBroker};
use crate::knobs::{KnobError, Knobs};
use crate::mode::DedupMode;
use crate::protocol::{Broker, BrokerError};
use crate::stats::{DedupStats, DomainStats, Events, VmStats};
use crate::sys::GuestMemory;
use crate::{ChangeSource, PAGE_SIZE, VmId};

/// Why an engine could not be made. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Its threads did not start.
    #[error("cannot start the folding threads")]
    Threads(#[source] rayon::ThreadPoolBuildError),
    /// The host does not tell its limits.
    #[error("cannot find out the host's limits; is /proc mounted?")]
    Limits(#[source] io::Error),
    /// A knob has a value that makes no sense.
    #[error("cannot work so")]
    Knobs(#[source] KnobError),
}

/// Why a VM could not be attached. The engine and the VM's memory are as they were.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The domain's broker refused it.
    #[error("the broker of domain '{domain}' refused VM {vm}")]
    Broker {
        /// The VM.
        vm: VmId,
        /// Its domain.
        domain: String,
        /// Why.
        #[source]
        source: BrokerError,
    },
    /// The domain could not be made.
    #[error("cannot make domain '{domain}'")]
    Domain {
        /// Its name.
        domain: String,
        /// Why.
        #[source]
        source: DomainError,
    },
    /// The domain's store could not be opened.
    #[error("cannot open the store of domain '{domain}'")]
    Store {
        /// The domain.
        domain: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The VM's memory cannot be folded.
    #[error("cannot fold the memory of VM {vm}")]
    Agent {
        /// The VM.
        vm: VmId,
        /// Why.
        #[source]
        source: AgentSetupError,
    },
}

/// Why the engine's picture of memory is wrong: a defect.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// In a domain's index.
    #[error("domain '{domain}'")]
    Index {
        /// The domain.
        domain: String,
        /// What is wrong.
        #[source]
        source: IndexError,
    },
    /// In a VM's mappings.
    #[error("the mappings of VM {vm}")]
    Mappings {
        /// The VM.
        vm: VmId,
        /// What is wrong.
        #[source]
        source: MappingError,
    },
}

/// A VM to be folded.
pub struct AttachSpec {
    /// Who it may share with: VMs of the same name, and nobody else.
    pub domain: String,
    /// How much of it is folded.
    pub mode: DedupMode,
    /// Its memory.
    pub memory: Arc<dyn GuestMemory>,
    /// What tells which of its pages have changed.
    pub changes: Box<dyn ChangeSource>,
}

struct Domain {
    broker: LocalBroker,
    store: Arc<StoreAccess>,
}

struct Member {
    domain: String,
    agent: Agent,
}

/// All folding of one process.
pub struct Engine {
    // Before the domains, so that memory is let go before the stores under it.
    members: BTreeMap<VmId, Member>,
    domains: BTreeMap<String, Domain>,
    workers: Workers,
    /// Opened for the first VM: without VMs an engine needs no permissions.
    process: Option<Arc<ProcessMemory>>,
    budget: Arc<MappingBudget>,
    store_pages: u32,
    knobs: Knobs,
    advisor: Advisor,
    /// The pass that is under way.
    cycle: Option<Cycle>,
    /// When chains were last looked through for dups to join.
    pruned_at: Instant,
    full_scans: u64,
    /// Events of VMs that are gone.
    past: Events,
}

impl Engine {
    /// Makes an engine without VMs.
    ///
    /// # Errors
    ///
    /// When a knob's value makes no sense, threads cannot be started, or `/proc` cannot be read.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        config.knobs.check().map_err(EngineError::Knobs)?;
        let store_pages = match config.store_pages {
            Some(pages) => pages,
            None => config::default_store_pages().map_err(EngineError::Limits)?,
        };
        let budget = match config.max_mappings {
            Some(limit) => MappingBudget::new(limit),
            None => MappingBudget::of_process().map_err(EngineError::Limits)?,
        };
        Ok(Self {
            members: BTreeMap::new(),
            domains: BTreeMap::new(),
            workers: Workers::new(config.count_threads).map_err(EngineError::Threads)?,
            process: None,
            budget: Arc::new(budget),
            store_pages,
            knobs: config.knobs,
            advisor: Advisor::default(),
            cycle: None,
            pruned_at: Instant::now(),
            full_scans: 0,
            past: Events::default(),
        })
    }

    /// Begins to fold a VM. Its memory may be in use already.
    ///
    /// # Errors
    ///
    /// When the domain cannot be made, the VM is attached already, or its memory does not allow it.
    pub fn attach(&mut self, vm: VmId, spec: AttachSpec) -> Result<(), AttachError> {
        let AttachSpec { domain: name, mode, memory, changes } = spec;
        let count_pages: u64 =
            memory.regions().iter().map(|region| u64::from(region.count_pages)).sum();
        let process = self.process(vm)?;
        let domain = self.domain(&name)?;
        let broker_error = |source| AttachError::Broker { vm, domain: name.clone(), source };
        // More pages than an index can number are refused by the agent; no item is made for them.
        let count_pages = u32::try_from(count_pages).unwrap_or(u32::MAX);
        domain.broker.register(vm, count_pages).map_err(broker_error)?;
        let (store, secret) = (Arc::clone(&domain.store), domain.broker.secret().clone());
        let budget = Arc::clone(&self.budget);
        let spec = AgentSpec { vm, mode, memory, changes, process, store, secret, budget };
        match Agent::new(spec) {
            Ok(agent) => {
                self.members.insert(vm, Member { domain: name, agent });
                Ok(())
            }
            Err(source) => {
                self.forget(vm, &name);
                Err(AttachError::Agent { vm, source })
            }
        }
    }

    /// Stops folding a VM that has ended: takes its memory off every slot, which loses its bytes.
    /// Does nothing if the VM is not attached. O(pages).
    pub fn detach(&mut self, vm: VmId) {
        let Some(mut member) = self.members.remove(&vm) else {
            return;
        };
        self.past.add(member.agent.events());
        if let Err(error) = member.agent.discard_memory() {
            // Its slots stay in use for as long as this process lives, rather than show through.
            log::error!("VM {vm}: cannot take its memory off the store: {error}");
            return;
        }
        self.forget(vm, &member.domain);
    }

    /// Begins to tell pages at rest from pages that keep changing: what changes from now on does
    /// not count as backlog. O(pages / 64).
    pub fn mark(&mut self) {
        for member in self.members.values_mut() {
            member.agent.mark();
        }
    }

    /// Passes until everything is folded that has been at rest since the beginning, or until
    /// `limit` is over, with `interval` between passes, in which running VMs show which of their
    /// pages keep changing.
    pub fn settle(&mut self, limit: Duration, interval: Duration) -> SettleReport {
        self.mark();
        let mut settling = Settling::new(limit);
        loop {
            if let Some(report) = settling.note(&self.pass()) {
                return report;
            }
            std::thread::sleep(interval);
        }
    }

    /// The VMs that are attached.
    pub fn vms(&self) -> impl Iterator<Item = VmId> + '_ {
        self.members.keys().copied()
    }

    /// What folding does and saves. O(pages that are there).
    pub fn stats(&self) -> DedupStats {
        let domains: Vec<DomainStats> =
            self.domains.iter().map(|(name, domain)| domain.broker.stats(name)).collect();
        let vms: Vec<VmStats> =
            self.members.iter().map(|(vm, member)| self.vm_stats(*vm, member)).collect();
        let events = self.events();

        let pages_shared = domains.iter().map(|domain| domain.pages_shared).sum();
        let pages_sharing: u64 = domains.iter().map(|domain| domain.pages_sharing).sum();
        let pages_zero: u64 = vms.iter().map(|vm| vm.zero_pages).sum();
        let saved_bytes = (pages_sharing + pages_zero) * PAGE_SIZE as u64;
        let agents: u64 = self.members.values().map(|member| member.agent.metadata_bytes()).sum();
        let brokers: u64 = domains.iter().map(|domain| domain.metadata_bytes).sum();
        let metadata_bytes = agents + brokers;
        let page_table_bytes = self.view_page_table_bytes();
        let live: u64 =
            self.domains.values().map(|domain| u64::from(domain.broker.live_slots())).sum();
        let idle_bytes = (live - pages_shared) * PAGE_SIZE as u64;
        let vma_bytes = self.members.values().map(|member| vma_bytes(&member.agent)).sum();
        let costs = metadata_bytes + vma_bytes + page_table_bytes + idle_bytes;
        DedupStats {
            pages_shared,
            pages_sharing,
            pages_unshared: domains.iter().map(|domain| domain.pages_unshared).sum(),
            stable_node_chains: domains.iter().map(|domain| domain.stable_node_chains).sum(),
            stable_node_dups: domains.iter().map(|domain| domain.stable_node_dups).sum(),
            pages_volatile: vms.iter().map(|vm| vm.volatile_pages).sum(),
            pages_zero,
            knobs: self.knobs,
            full_scans: self.full_scans,
            events,
            saved_bytes,
            metadata_bytes,
            page_table_bytes,
            vma_bytes,
            general_profit: saved_bytes.cast_signed() - costs.cast_signed(),
            resident_bytes: resident_bytes(&domains, &vms),
            vmas_used: self.budget.used(),
            vmas_budget: self.budget.limit(),
            cpu_seconds: self.workers.cpu_time().as_secs_f64(),
            domains,
            vms,
        }
    }

    /// Verifies every index, and every VM's mappings against the kernel's. The VMs must not run
    /// meanwhile: what they write between a pass and the check looks like a difference.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), CheckError> {
        for (name, domain) in &self.domains {
            let wrong = |source| CheckError::Index { domain: name.clone(), source };
            domain.broker.check().map_err(wrong)?;
        }
        for (&vm, member) in &self.members {
            member.agent.check().map_err(|source| CheckError::Mappings { vm, source })?;
        }
        Ok(())
    }

    fn process(&mut self, vm: VmId) -> Result<Arc<ProcessMemory>, AttachError> {
        if let Some(process) = &self.process {
            return Ok(Arc::clone(process));
        }
        let process = ProcessMemory::open().map_err(|source| AttachError::Agent { vm, source })?;
        Ok(Arc::clone(self.process.insert(Arc::new(process))))
    }

    fn domain(&mut self, name: &str) -> Result<&mut Domain, AttachError> {
        if !self.domains.contains_key(name) {
            let mut broker = LocalBroker::new(self.store_pages, self.knobs.max_page_sharing)
                .map_err(|source| AttachError::Domain { domain: name.to_owned(), source })?;
            broker.set_merge_across_nodes(self.knobs.merge_across_nodes);
            let store = broker
                .store()
                .and_then(|memfd| StoreAccess::new(memfd, self.store_pages))
                .map_err(|source| AttachError::Store { domain: name.to_owned(), source })?;
            let domain = Domain { broker, store: Arc::new(store) };
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
        if domain.broker.count_vms() == 0 {
            self.domains.remove(name);
        }
    }

    /// What has happened to the pages of all VMs, those that are gone included.
    fn events(&self) -> Events {
        let mut events = self.past;
        for member in self.members.values() {
            events.add(member.agent.events());
        }
        events
    }

    fn vm_stats(&self, vm: VmId, member: &Member) -> VmStats {
        let broker = self.domains.get(&member.domain).map(|domain| &domain.broker);
        let waiting = broker.and_then(|broker| broker.count_waiting(vm)).unwrap_or(0);
        let mut stats = member.agent.stats(&member.domain, waiting);
        stats.rmap_items = broker.map_or(0, |broker| broker.count_items(vm));
        let items = broker.map_or(0, |broker| broker.item_bytes(vm));
        let saved = (stats.merging_pages + stats.zero_pages) * PAGE_SIZE as u64;
        let costs = items + member.agent.metadata_bytes() + vma_bytes(&member.agent);
        stats.profit = saved.cast_signed() - costs.cast_signed();
        stats
    }

    /// At most: an entry of 8 bytes for every slot that was ever looked at.
    fn view_page_table_bytes(&self) -> u64 {
        let tables = |domain: &Domain| {
            let slots = domain.broker.slots_high_water();
            (slots * size_of::<u64>()).next_multiple_of(PAGE_SIZE) as u64
        };
        self.domains.values().map(tables).sum()
    }
}

/// What a mapping costs the kernel: 192 bytes of `vm_area_struct` and its part of a maple tree's node
/// of 256 (Linux 6.18, `/proc/slabinfo`).
const VMA_BYTES: u64 = 224;

/// What the mappings that folding has made of a VM's memory cost the kernel.
fn vma_bytes(agent: &Agent) -> u64 {
    agent.count_folded_vmas() * VMA_BYTES
}

fn resident_bytes(domains: &[DomainStats], vms: &[VmStats]) -> Option<u64> {
    let stores: Option<u64> = domains.iter().map(|domain| domain.store_bytes).sum();
    let private: Option<u64> = vms.iter().map(|vm| vm.private_bytes).sum();
    Some(stores? + private?)
}
