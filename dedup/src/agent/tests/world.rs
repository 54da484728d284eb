//! VMs on real memory, whose broker fails.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::faulty_broker::Faulty;
use crate::agent::budget::MappingBudget;
use crate::agent::step_work::StepWork;
use crate::agent::{Agent, AgentError, AgentSpec, ProcessMemory, ScanRules, StoreAccess};
use crate::broker::LocalBroker;
use crate::engine::agree;
use crate::mode::DedupMode;
use crate::protocol::Broker;
use crate::workers::Workers;
use crate::{AnonymousMemory, LinearIndex, PAGE_SIZE, VmId, WrittenPages};

pub(super) const VMS: u32 = 3;
pub(super) const PAGES: usize = 24;
pub(super) const STORE_PAGES: u32 = 256;
const RULES: ScanRules = ScanRules { smart_scan: true, use_zero_pages: true };

/// A VM that is folded.
pub(in crate::agent) struct Vm {
    pub(in crate::agent) agent: Agent,
    pub(super) memory: Arc<AnonymousMemory>,
    written: WrittenPages,
    /// What its pages must hold.
    contents: [u32; PAGES],
}

/// VMs whose broker fails.
pub(in crate::agent) struct World {
    pub(in crate::agent) broker: Faulty,
    pub(in crate::agent) vms: BTreeMap<VmId, Vm>,
    budget: Arc<MappingBudget>,
    /// Visits, discards and unmerges that have failed.
    pub(super) error_count: usize,
}

/// The bytes of a content; those of 0 are zeroes.
fn page(content: u32) -> [u8; PAGE_SIZE] {
    let mut bytes = if content == 0 { [0; PAGE_SIZE] } else { [0xa5; PAGE_SIZE] };
    bytes[..4].copy_from_slice(&content.to_le_bytes());
    bytes
}

impl World {
    pub(in crate::agent) fn new(
        process: &Arc<ProcessMemory>,
        max_page_sharing: u32,
        fails: Range<usize>,
    ) -> Self {
        let mut broker = LocalBroker::new(STORE_PAGES, max_page_sharing).unwrap();
        let store = Arc::new(StoreAccess::new(broker.store().unwrap(), STORE_PAGES).unwrap());
        let budget = Arc::new(MappingBudget::new(1 << 16));
        let workers = Arc::new(Workers::new(None).unwrap());
        let mut vms = BTreeMap::new();
        for vm in (0..VMS).map(VmId) {
            let memory = Arc::new(AnonymousMemory::new(u32::try_from(PAGES).unwrap()).unwrap());
            let written = WrittenPages::new(u32::try_from(PAGES).unwrap());
            broker.register(vm, u32::try_from(PAGES).unwrap()).unwrap();
            let spec = AgentSpec {
                vm,
                mode: DedupMode::On,
                memory: memory.clone(),
                changes: Box::new(written.clone()),
                process: Arc::clone(process),
                store: Arc::clone(&store),
                secret: broker.secret().clone(),
                budget: Arc::clone(&budget),
                workers: Arc::clone(&workers),
            };
            let agent = Agent::new(spec).unwrap();
            vms.insert(vm, Vm { agent, memory, written, contents: [0; PAGES] });
        }
        let broker = Faulty::new(broker, fails);
        Self { broker, vms, budget, error_count: 0 }
    }

    /// Merges, breaks, gives back, discards and unmerges pages.
    pub(in crate::agent) fn live(&mut self) {
        for vm in 0..VMS {
            let own = |number: u32| 1000 * (vm + 1) + number;
            (0..16).for_each(|number| self.write(vm, number, number + 1));
            (16..20).for_each(|number| self.write(vm, number, 0));
            (20..24).for_each(|number| self.write(vm, number, own(number)));
        }
        self.pass();
        self.pass();
        (0..4).for_each(|number| self.write(0, number, 500 + number));
        (0..2).for_each(|number| self.write(1, number, 500 + number));
        // Never offered again: nothing may go on waiting for them.
        (0..VMS).for_each(|vm| self.write(vm, 5, 0));
        self.pass();
        self.pass();
        self.discard(2, 8..12);
        self.pass();
        self.unmerge(1);
        self.write(1, 7, 17);
        self.pass();
        self.pass();
    }

    pub(super) fn write(&mut self, vm: u32, number: u32, content: u32) {
        let vm = self.vms.get_mut(&VmId(vm)).unwrap();
        vm.memory.write(number as usize * PAGE_SIZE, &page(content));
        vm.written.insert(LinearIndex(number));
        vm.contents[number as usize] = content;
    }

    pub(super) fn pass(&mut self) {
        let Self { broker, vms, .. } = self;
        let mut errors = 0;
        for vm in vms.values_mut() {
            let mut look = || {
                vm.agent.begin_pass(broker)?;
                vm.agent.work = StepWork::default();
                while vm.agent.take_in(broker)?.is_some() {}
                while vm.agent.look(broker, 7, RULES)?.is_some() {}
                Ok::<_, AgentError>(())
            };
            errors += usize::from(look().is_err());
        }
        let mut busy = true;
        while std::mem::take(&mut busy) {
            for vm in vms.values_mut() {
                match vm.agent.poll(broker, 5) {
                    Ok(count) => busy |= count > 0,
                    Err(_) => errors += 1,
                }
            }
        }
        self.error_count += errors;
        self.check_bytes();
    }

    fn discard(&mut self, vm: u32, pages: Range<u32>) {
        let vm = self.vms.get_mut(&VmId(vm)).unwrap();
        vm.contents[pages.start as usize..pages.end as usize].fill(0);
        let pages = LinearIndex(pages.start)..LinearIndex(pages.end);
        let mut result = vm.agent.discard(&mut self.broker, pages.clone(), false);
        if result.as_ref().is_ok_and(|report| report.kept_pages > 0) {
            // The kernel refused, once.
            result = vm.agent.discard(&mut self.broker, pages, false);
            assert!(result.as_ref().is_ok_and(|report| report.kept_pages == 0));
        }
        self.error_count += usize::from(result.is_err());
        self.check_bytes();
    }

    fn unmerge(&mut self, vm: u32) {
        let vm = self.vms.get_mut(&VmId(vm)).unwrap();
        let result = vm.agent.unmerge(&mut self.broker, 100, true);
        self.error_count += usize::from(result.is_err());
        self.check_bytes();
    }

    /// Passes, with a broker that works, for longer than young pages that change are passed over.
    pub(in crate::agent) fn settle(&mut self) {
        self.broker.fails = 0..0;
        (0..6).for_each(|_| self.pass());
    }

    fn check_bytes(&self) {
        let mut bytes = [0; PAGE_SIZE];
        for (id, vm) in &self.vms {
            for (number, &content) in vm.contents.iter().enumerate() {
                vm.memory.read(number * PAGE_SIZE, &mut bytes);
                assert_eq!(bytes, page(content), "page {number} of VM {id}");
            }
        }
    }

    /// Checks that broker, agents and kernel have the same state; returns the pages sharing, the zero ones, and how
    /// many there are with those that share or wait alone: which of both may depend on history.
    pub(super) fn check(&self) -> [u64; 3] {
        self.broker.broker.check().unwrap();
        let stats = self.broker.broker.stats("faulty");
        let (mut merging, mut zero, mut vmas) = (0, 0, 0);
        for (&id, vm) in &self.vms {
            vm.agent.check().unwrap();
            let unshared = self.broker.broker.waiting_count(id).unwrap();
            assert_eq!(unshared, u64::from(vm.agent.offered.count()), "offered pages of VM {id}");
            assert!(vm.agent.has_reported());
            agree(id, &vm.agent, &self.broker.broker).unwrap();
            let stats = vm.agent.stats("faulty", unshared, None);
            merging += stats.merging_pages;
            zero += stats.zero_pages;
            vmas += stats.vmas;
        }
        assert_eq!(merging, stats.pages_shared + stats.pages_sharing);
        assert_eq!(u64::from(self.broker.broker.live_slots()), stats.pages_shared, "orphan slots");
        assert_eq!(stats.store_bytes, Some(stats.pages_shared * PAGE_SIZE as u64));
        assert_eq!(self.budget.used(), vmas);
        let alone = stats.pages_shared + stats.pages_unshared;
        [stats.pages_sharing, zero, stats.pages_sharing + zero + alone]
    }

    pub(super) fn end(mut self) {
        for (id, mut vm) in std::mem::take(&mut self.vms) {
            let mut next = LinearIndex(0);
            while next.0 < vm.agent.page_count() {
                next = vm.agent.leave(&mut self.broker, next).unwrap();
            }
            self.broker.unregister(id).unwrap();
        }
        assert_eq!(self.check(), [0; 3]);
        assert_eq!(self.broker.broker.node_count(), 0);
        assert_eq!(self.budget.used(), 0);
    }
}
