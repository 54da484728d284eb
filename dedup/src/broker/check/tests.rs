//! Each part of the check fails when what it looks at is not so.

use super::*;
use crate::extents::Extent;
use crate::protocol::{Broker, Directive, Offer, Outcome};

const VMS: [VmId; 2] = [VmId(0), VmId(1)];

fn page(number: u8) -> [u8; PAGE_SIZE] {
    [number + 1; PAGE_SIZE]
}

fn linear(number: u32) -> LinearIndex {
    LinearIndex(number)
}

/// Two VMs of eight pages. Page 0 of both is shared, pages 1 have met, page 2 of the first waits, and pages
/// 3 shared a slot that nobody does any more.
fn broker() -> LocalBroker {
    let mut broker = LocalBroker::new(1 << 10, 256).unwrap();
    for vm in VMS {
        broker.register(vm, 8).unwrap();
    }
    for number in [3, 0] {
        for vm in VMS {
            offer(&mut broker, vm, number);
        }
        for vm in VMS {
            merge(&mut broker, vm);
        }
    }
    for vm in VMS {
        let linear = linear(3);
        let gone = [Outcome::Left { linear }, Outcome::Unbacked { linear, page_count: 1 }];
        broker.report(vm, &gone).unwrap();
        offer(&mut broker, vm, 1);
    }
    offer(&mut broker, VMS[0], 2);
    broker.check().unwrap();
    broker
}

fn offer(broker: &mut LocalBroker, vm: VmId, number: u8) {
    let fingerprint = broker.secret().fingerprint(&page(number));
    let offer = Offer { linear: linear(number.into()), fingerprint };
    broker.offer(vm, &[offer], &mut Vec::new()).unwrap();
}

/// Has a VM do what it is directed to.
fn merge(broker: &mut LocalBroker, vm: VmId) {
    let mut directives = Vec::new();
    broker.directives(vm, 9, &mut directives).unwrap();
    for directive in directives {
        let (linear, slot) = match directive {
            Directive::Create { linear, slot, .. } => {
                let bytes = page(u8::try_from(linear.0).unwrap());
                broker.fill(vm, slot, &bytes, &mut Vec::new()).unwrap();
                (linear, slot)
            }
            Directive::Merge { linear, slot, .. } => (linear, slot),
            other => panic!("{other:?}"),
        };
        broker.report(vm, &[Outcome::Merged(Extent { linear, slot, page_count: 1 })]).unwrap();
    }
}

/// What the check finds after something was changed.
fn found(change: impl FnOnce(&mut LocalBroker)) -> String {
    let mut broker = broker();
    change(&mut broker);
    broker.check().unwrap_err().to_string()
}

fn member(broker: &mut LocalBroker) -> &mut crate::broker::Member {
    broker.members.get_mut(&VMS[0]).unwrap()
}

#[test]
fn an_undirected_page_that_is_on_no_queue_is_found() {
    let what = found(|broker| member(broker).queue.remove(linear(1)));
    assert!(what.contains("page 1 of VM 0 is undirected, and is on no queue"), "{what}");
}

#[test]
fn a_page_that_is_on_a_queue_for_nothing_is_found() {
    for number in [2, 3] {
        let what = found(|broker| member(broker).queue.insert(linear(number)));
        assert!(what.contains(&format!("page {number} of VM 0 is on a queue")), "{what}");
    }
    for number in [0, 2, 3] {
        let what = found(|broker| member(broker).queue.park(linear(number)));
        assert!(what.contains(&format!("page {number} of VM 0 is set aside")), "{what}");
    }
}

#[test]
fn a_lack_of_slots_that_is_not_noted_is_found() {
    let what = found(|broker| member(broker).queue.set_lacking(linear(1)));
    assert!(what.contains("pages of VM 0 lack slots"), "{what}");
}

#[test]
fn a_page_that_is_about_to_be_offered_again_and_of_which_that_is_not_noted_is_found() {
    let retry = |broker: &mut LocalBroker| {
        let queue = &mut member(broker).queue;
        queue.defer(linear(1));
        queue.retry(linear(1));
    };
    let what = found(retry);
    assert!(what.contains("pages of VM 0 are about to be offered again"), "{what}");
    let what = found(|broker| member(broker).queue.retry(linear(1)));
    assert!(what.contains("page 1 is retried, and not deferred"), "{what}");
}

#[test]
fn a_move_that_a_page_is_directed_to_and_that_shares_nothing_is_found() {
    let what = found(|broker| assert!(member(broker).awaiting_ack.insert(linear(2))));
    assert!(what.contains("page 2 of VM 0 is directed to move"), "{what}");
}

#[test]
fn a_number_that_is_in_use_and_free_is_found() {
    let what = found(|broker| {
        let id = broker.store.slots.node(Slot(1)).unwrap();
        broker.stable.free_twice(id);
    });
    assert!(what.contains("node") && what.contains("is free, and is in use"), "{what}");
    let what = found(|broker| broker.rmap.free_twice(0));
    assert!(what.contains("chunk 0 is free, and is in use"), "{what}");
    let what = found(|broker| broker.store.slots.hand_out(Slot(0)));
    assert!(what.contains("slot 0 is quarantined, and is being reused"), "{what}");
    let what = found(|broker| broker.store.slots.hand_out(Slot(1)));
    assert!(what.contains("slot 1 is free: true"), "{what}");
}

#[test]
fn a_number_that_is_neither_in_use_nor_free_is_found() {
    let what = found(|broker| assert!(broker.stable.chains.insert().is_some()));
    assert!(what.contains("chain 0 is neither in use nor free"), "{what}");
}

#[test]
fn a_vm_that_no_agent_is_of_is_found() {
    let broker = broker();
    broker.check_vms(&VMS.into()).unwrap();
    let what = broker.check_vms(&[VMS[0]].into()).unwrap_err().to_string();
    assert!(what.contains("knows VM 1, which has no agent"), "{what}");
    let what = broker.check_vms(&[VMS[0], VMS[1], VmId(7)].into()).unwrap_err().to_string();
    assert!(what.contains("VM 7 has an agent, and its broker does not know it"), "{what}");
}
