//! A broker that fails, at every call that there is: real memory, real merges.

mod faulty_broker;
mod world;

use std::sync::Arc;

use super::ProcessMemory;
use crate::engine::agree;
use crate::page_set::PageSet;
use crate::protocol::{BrokerError, Directive, Outcome};
use crate::sys::{GuestMemory, faults};
use crate::{LinearIndex, Slot, VmId};
use world::{PAGES, STORE_PAGES, VMS};

pub(super) use world::World;

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
        let [shared, offered, dirty] = [&agent.shared, &agent.offered, &agent.dirty];
        let pages = |set: &PageSet| set.iter().map(|page| page.0).collect::<Vec<_>>();
        assert_eq!([shared, offered].map(pages), [vec![0, 1, 2], vec![4, 5, 6]]);
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
