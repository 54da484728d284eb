//! A broker that fails, at every call that there is: real memory, real merges.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::*;
use crate::broker::LocalBroker;
use crate::engine::agree;
use crate::protocol::{
    Broker, BrokerError, Decision, Directive, IdentityOffer, Offer, ReportError,
};
use crate::sys::faults;
use crate::workers::Workers;
use crate::{AnonymousMemory, LinearIndex, PAGE_SIZE, Slot, WrittenPages};

const VMS: u32 = 3;
const PAGES: usize = 24;
const STORE_PAGES: u32 = 256;
const RULES: ScanRules = ScanRules { smart_scan: true, use_zero_pages: true };

/// Passes on to a real broker all calls but those that fail.
struct Faulty {
    broker: LocalBroker,
    calls: usize,
    fails: Range<usize>,
    /// Outcomes that are always refused, and why.
    refuses: fn(VmId, &Outcome) -> Option<BrokerError>,
    /// Pages that are to be offered by their identities.
    by_identity: fn(LinearIndex) -> bool,
    /// Whether what is offered by its identity is refused.
    refuses_identities: bool,
    /// Directives that it gives once, and that no broker should.
    strays: Vec<Directive>,
}

impl Faulty {
    /// The error of a broker that has no memory for now.
    fn call(&mut self) -> Result<(), BrokerError> {
        let call = self.calls;
        self.calls += 1;
        let full = BrokerError::NoItems { page_count: 1, limit: 0 };
        if self.fails.contains(&call) { Err(full) } else { Ok(()) }
    }
}

impl Broker for Faulty {
    fn offer(
        &mut self,
        vm: VmId,
        offers: &[Offer],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), BrokerError> {
        self.call()?;
        let by_identity = |offer: &Offer| (self.by_identity)(offer.linear);
        let others: Vec<Offer> =
            offers.iter().copied().filter(|offer| !by_identity(offer)).collect();
        let mut decided = Vec::new();
        self.broker.offer(vm, &others, &mut decided)?;
        let mut decided = decided.into_iter();
        let decide =
            |offer| if by_identity(offer) { Decision::Identify } else { decided.next().unwrap() };
        decisions.extend(offers.iter().map(decide));
        Ok(())
    }

    fn offer_by_identity(
        &mut self,
        vm: VmId,
        offers: &[IdentityOffer],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), BrokerError> {
        self.call()?;
        if self.refuses_identities {
            return Err(BrokerError::UnknownVm(vm));
        }
        self.broker.offer_by_identity(vm, offers, decisions)
    }

    fn age(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        skip: &mut Vec<bool>,
    ) -> Result<(), BrokerError> {
        self.call()?;
        self.broker.age(vm, pages, skip)
    }

    fn fill(
        &mut self,
        vm: VmId,
        first: Slot,
        pages: &[u8],
        accepted: &mut Vec<bool>,
    ) -> Result<(), BrokerError> {
        self.call()?;
        self.broker.fill(vm, first, pages, accepted)
    }

    fn report(&mut self, vm: VmId, outcomes: &[Outcome]) -> Result<(), ReportError> {
        let mut refused = outcomes.iter().map(|outcome| (self.refuses)(vm, outcome)).enumerate();
        if let Some((done, source)) = refused.find_map(|(at, why)| Some((at, why?))) {
            self.broker.report(vm, &outcomes[..done])?;
            return Err(ReportError { done, source });
        }
        let result = self.call();
        // One that fails has taken a part.
        let done = if result.is_ok() { outcomes.len() } else { outcomes.len() / 2 };
        self.broker.report(vm, &outcomes[..done])?;
        result.map_err(|source| ReportError { done, source })
    }

    fn directives(
        &mut self,
        vm: VmId,
        limit: usize,
        directives: &mut Vec<Directive>,
    ) -> Result<(), BrokerError> {
        self.call()?;
        directives.append(&mut self.strays);
        self.broker.directives(vm, limit, directives)
    }

    fn partners(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        partners: &mut Vec<Option<VmId>>,
    ) -> Result<(), BrokerError> {
        self.call()?;
        self.broker.partners(vm, pages, partners)
    }

    fn unregister(&mut self, vm: VmId) -> Result<(), BrokerError> {
        self.broker.unregister(vm)
    }
}

pub(super) struct Vm {
    pub(super) agent: Agent,
    memory: Arc<AnonymousMemory>,
    written: WrittenPages,
    /// What its pages must hold.
    contents: [u32; PAGES],
}

/// VMs whose broker fails.
pub(super) struct World {
    broker: Faulty,
    pub(super) vms: BTreeMap<VmId, Vm>,
    budget: Arc<MappingBudget>,
    error_count: usize,
}

/// The bytes of a content; those of 0 are zeroes.
fn page(content: u32) -> [u8; PAGE_SIZE] {
    let mut bytes = if content == 0 { [0; PAGE_SIZE] } else { [0xa5; PAGE_SIZE] };
    bytes[..4].copy_from_slice(&content.to_le_bytes());
    bytes
}

impl World {
    pub(super) fn new(
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
        let broker = Faulty {
            broker,
            calls: 0,
            fails,
            refuses: |_, _| None,
            by_identity: |_| false,
            refuses_identities: false,
            strays: Vec::new(),
        };
        Self { broker, vms, budget, error_count: 0 }
    }

    /// Merges, breaks, gives back, discards and unmerges pages.
    pub(super) fn live(&mut self) {
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

    fn write(&mut self, vm: u32, number: u32, content: u32) {
        let vm = self.vms.get_mut(&VmId(vm)).unwrap();
        vm.memory.write(number as usize * PAGE_SIZE, &page(content));
        vm.written.insert(LinearIndex(number));
        vm.contents[number as usize] = content;
    }

    fn pass(&mut self) {
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
    pub(super) fn settle(&mut self) {
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

    /// That broker, agents and kernel say the same; returns the pages sharing, the zero ones, and how
    /// many there are with those that share or wait alone: which of both may depend on history.
    fn check(&self) -> [u64; 3] {
        self.broker.broker.check().unwrap();
        let stats = self.broker.broker.stats("faulty");
        let (mut merging, mut zero, mut vmas) = (0, 0, 0);
        for (&id, vm) in &self.vms {
            vm.agent.check().unwrap();
            let waiting = self.broker.broker.waiting_count(id).unwrap();
            assert_eq!(waiting, u64::from(vm.agent.waiting.count()), "waiting pages of VM {id}");
            assert!(vm.agent.has_reported());
            agree(id, &vm.agent, &self.broker.broker).unwrap();
            let stats = vm.agent.stats("faulty", waiting, None);
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

    fn end(mut self) {
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

// The broker is gone, for one call, for a few, and for good.
#[test]
fn a_broker_that_fails_at_any_call_costs_no_byte_no_slot_and_no_count() {
    let process = Arc::new(ProcessMemory::open(true).unwrap());
    for max_page_sharing in [2, 256] {
        let mut world = World::new(&process, max_page_sharing, 0..0);
        world.live();
        world.settle();
        let expected = world.check();
        assert!(expected.iter().all(|&count| count > 0), "{expected:?}");
        let calls = world.broker.calls;
        world.end();
        for first in 0..calls {
            for last in [first + 1, first + 4, usize::MAX] {
                let mut world = World::new(&process, max_page_sharing, first..last);
                world.live();
                let is_reached = world.broker.calls > first;
                assert_eq!(world.error_count > 0, is_reached, "call {first}");
                world.settle();
                let found = world.check();
                assert_eq!(found, expected, "{first}..{last} failed");
                world.end();
            }
        }
    }
}

/// A mapping that fails when the old one, or a part of it, is gone: every one that there is.
#[test]
fn a_mapping_that_fails_halfway_costs_no_byte_no_slot_and_no_count() {
    let process = Arc::new(ProcessMemory::open(true).unwrap());
    let mut world = World::new(&process, 256, 0..0);
    world.live();
    world.settle();
    let expected = world.check();
    world.end();
    for vm in (0..VMS).map(VmId) {
        for gone in [100, 50, 0] {
            let mut failed_count = 0;
            loop {
                let mut world = World::new(&process, 256, 0..0);
                let region = world.vms[&vm].memory.regions()[0];
                let within = region.host_addr..region.host_addr + region.len_bytes();
                faults::inject(within.clone(), failed_count, gone, failed_count % 3);
                world.live();
                world.settle();
                let has_failed = faults::clear(&within);
                let case = format!("mapping {failed_count} of VM {vm}, {gone} % gone");
                assert_eq!(world.check(), expected, "{case}");
                let errors = world.vms[&vm].agent.events().errors;
                assert!(gone < 100 || errors == 0, "{case}: the gap was mapped");
                world.end();
                if !has_failed {
                    break;
                }
                failed_count += 1;
            }
            assert!(failed_count > 2, "{failed_count} mappings of VM {vm}");
        }
    }
}

// A broker that never comes back, and VMs that end all the same.
#[test]
fn vms_that_end_without_their_broker_leave_nothing_behind() {
    let process = Arc::new(ProcessMemory::open(true).unwrap());
    let mut first = 0;
    loop {
        let mut world = World::new(&process, 2, first..usize::MAX);
        world.live();
        let is_over = world.broker.calls <= first;
        world.end();
        if is_over {
            assert!(first > 50, "{first} calls");
            return;
        }
        first += 1;
    }
}

// An outcome that a broker refuses was reported again first for ever, and nothing of the VM was folded.
#[test]
fn an_outcome_that_is_refused_is_undone_and_the_rest_of_its_vm_is_folded_on() {
    fn is_refused(vm: VmId, outcome: &Outcome) -> bool {
        vm == VmId(1) && matches!(outcome, Outcome::Merged(run) if run.linear.0 < 4)
    }
    let process = Arc::new(ProcessMemory::open(true).unwrap());
    let refusals: [fn(VmId, &Outcome) -> Option<BrokerError>; 2] = [
        |vm, outcome| is_refused(vm, outcome).then_some(BrokerError::BadSlot { vm, slot: Slot(0) }),
        |vm, outcome| is_refused(vm, outcome).then_some(BrokerError::UnknownVm(vm)),
    ];
    for refuses in refusals {
        let mut world = World::new(&process, 256, 0..0);
        world.broker.refuses = refuses;
        world.live();
        world.settle();
        assert_eq!(world.error_count, 0, "no pass ends for it");
        world.check();
        let agent = &world.vms[&VmId(1)].agent;
        assert!(agent.events.errors > 0, "it is counted");
        assert!(agent.shared.contains(LinearIndex(10)), "others are folded");
        // All is well once the broker takes it.
        world.broker.refuses = |_, _| None;
        world.settle();
        world.check();
        assert!(world.vms[&VmId(1)].agent.shared.contains(LinearIndex(3)));
        world.end();
    }
}

#[test]
fn what_was_decided_of_pages_stands_although_others_cannot_be_offered_by_their_identities() {
    let process = Arc::new(ProcessMemory::open(true).unwrap());
    let mut world = World::new(&process, 256, 0..0);
    world.broker.by_identity = |linear| linear.0 == 3;
    world.broker.refuses_identities = true;
    // All are offered at once.
    for vm in 0..VMS {
        (0..4).for_each(|number| world.write(vm, number, number + 1));
        (4..7).for_each(|number| world.write(vm, number, 1000 * (vm + 1) + number));
    }
    for _ in 0..3 {
        world.pass();
        for (&id, vm) in &world.vms {
            agree(id, &vm.agent, &world.broker.broker).unwrap();
        }
    }
    assert!(world.error_count > 0);
    for vm in world.vms.values() {
        let agent = &vm.agent;
        let [shared, waiting, dirty] = [&agent.shared, &agent.waiting, &agent.dirty];
        let pages = |set: &PageSet| set.iter().map(|page| page.0).collect::<Vec<_>>();
        assert_eq!([shared, waiting].map(pages), [vec![0, 1, 2], vec![4, 5, 6]]);
        assert!(dirty.contains(LinearIndex(3)));
    }
    world.broker.refuses_identities = false;
    world.settle();
    world.check();
    assert_eq!(world.vms[&VmId(0)].agent.shared.count(), 4);
    world.end();
}

#[test]
fn directives_about_pages_or_slots_that_do_not_exist_are_counted_and_all_else_is_done() {
    let process = Arc::new(ProcessMemory::open(true).unwrap());
    let mut world = World::new(&process, 256, 0..0);
    world.live();
    let slots = [Slot(0), Slot(STORE_PAGES), Slot(u32::MAX)];
    for linear in [u32::try_from(PAGES).unwrap(), u32::MAX].map(LinearIndex) {
        for slot in slots {
            world.broker.strays.extend([
                Directive::Create { linear, slot, partners: 1, apart: 0 },
                Directive::Merge { linear, slot, awaited: true },
            ]);
        }
        world.broker.strays.extend([Directive::Offer { linear }, Directive::Unshare { linear }]);
    }
    let linear = LinearIndex(23);
    for slot in [STORE_PAGES, u32::MAX].map(Slot) {
        world.broker.strays.push(Directive::Create { linear, slot, partners: 1, apart: 1 });
        world.broker.strays.push(Directive::Merge { linear, slot, awaited: false });
    }
    let count = world.broker.strays.len() as u64;
    world.pass();
    assert_eq!(world.error_count, 0, "no pass ends for it");
    let errors: u64 = world.vms.values().map(|vm| vm.agent.events.errors).sum();
    assert_eq!(errors, count);
    world.settle();
    world.check();
    world.end();
}

#[test]
fn memory_that_could_not_be_marked_is_marked_by_a_later_pass() {
    let process = Arc::new(ProcessMemory::open(false).unwrap());
    let mut world = World::new(&process, 256, 0..0);
    world.live();
    let pages = u32::try_from(PAGES).unwrap();
    let agent = &mut world.vms.get_mut(&VmId(0)).unwrap().agent;
    assert_eq!(agent.find_unmarked().unwrap(), None);
    // As if the kernel had refused it.
    agent.space.span(LinearIndex(0), pages).advise_otherwise(libc::MADV_DOFORK);
    assert!(agent.find_unmarked().unwrap().is_some());
    agent.unmarked_memory = Some(LinearIndex(0).run(pages));
    assert_eq!(agent.find_unmarked().unwrap(), None, "it is known");
    world.pass();
    let agent = &world.vms[&VmId(0)].agent;
    assert_eq!(agent.unmarked_memory, None);
    assert_eq!(agent.find_unmarked().unwrap(), None);
}
