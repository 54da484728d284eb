//! Ranges of pages that end beyond what numbers can express, or beyond a VM: refused, and never taken for others.
//! In builds that check arithmetic a wrong sum panics here; in others it would come out as a small number.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

#[path = "common/mod.rs"]
mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use common::{engine, page, settle, twins};
use pagefold_dedup::internals::{Broker, Extent, LocalBroker, Offer, Outcome};
use pagefold_dedup::{AnonymousMemory, Engine, LayoutChange, LinearIndex, PAGE_SIZE, Slot, VmId};

const PAGES: u32 = 16;

/// Numbers near every edge.
const EDGES: [u32; 11] = [
    0,
    1,
    PAGES - 1,
    PAGES,
    PAGES + 1,
    i32::MAX as u32,
    i32::MAX as u32 + 1,
    u32::MAX - PAGES,
    u32::MAX - PAGES + 1,
    u32::MAX - 1,
    u32::MAX,
];

/// The same for addresses, in bytes.
const ADDRESSES: [u64; 8] = [
    PAGES as u64 * 4096,
    (u32::MAX as u64) * 4096,
    (u32::MAX as u64 + 1) * 4096,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 2 * 4096 + 1,
    u64::MAX - 4095,
    u64::MAX,
];

/// Pairs of a first page and a number of pages, not all of which a VM has.
fn beyond() -> impl Iterator<Item = (LinearIndex, u32)> {
    let pairs = EDGES.into_iter().flat_map(|first| EDGES.map(|count| (first, count)));
    let outside =
        pairs.filter(|&(first, count)| u64::from(first) + u64::from(count) > PAGES.into());
    outside.map(|(first, count)| (LinearIndex(first), count))
}

/// Two VMs that share all of their pages.
fn folded() -> (Engine, [common::TestVm; 2]) {
    let mut engine = engine();
    let vms = twins(&mut engine, PAGES);
    settle(&mut engine);
    (engine, vms)
}

fn assert_unharmed(engine: &Engine, vms: &[common::TestVm]) {
    engine.check().unwrap();
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
    for vm in vms {
        (0..PAGES).for_each(|number| assert_eq!(vm.read(number as usize), page(number)));
    }
}

#[test]
fn ranges_that_end_beyond_a_vm_are_refused_and_do_not_wrap() {
    let (mut engine, vms) = folded();
    let vm = vms[0].id;
    for (first, page_count) in beyond() {
        let range = format!("{page_count} pages from {} on", first.0);
        assert!(engine.begin_discard(vm, first, page_count).is_err(), "{range}");
        assert!(engine.discard(vm, first, page_count).is_err(), "{range}");
        for mergeable in [false, true] {
            assert!(engine.set_mergeable(vm, first, page_count, mergeable).is_err(), "{range}");
        }
        let destination = Arc::new(AnonymousMemory::new(1).unwrap());
        assert!(engine.relocate(vm, first, page_count, destination).is_err(), "{range}");
        for gpa in ADDRESSES {
            let change = LayoutChange::Add { linear: first, page_count, gpa };
            assert!(engine.change_layout(vm, change).is_err(), "{range} at {gpa:#x}");
        }
    }
    assert_unharmed(&engine, &vms);
}

#[test]
fn addresses_and_regions_at_the_end_of_numbers_are_refused_and_do_not_wrap() {
    let (mut engine, vms) = folded();
    let vm = vms[0].id;
    for gpa in ADDRESSES {
        assert_eq!(engine.find(vm, gpa), None, "{gpa:#x}");
        assert!(engine.explain(vm, gpa).is_none(), "{gpa:#x}");
        for page_count in EDGES {
            let split = LayoutChange::Split { gpa, page_count };
            assert!(engine.change_layout(vm, split).is_err(), "{gpa:#x}");
        }
        assert!(engine.change_layout(vm, LayoutChange::Remove { gpa }).is_err());
    }
    for to in [u64::MAX, u64::MAX - 4095, u64::MAX - 2 * 4096 + 1] {
        let change = LayoutChange::Move { gpa: 0, to_gpa: to };
        assert!(engine.change_layout(vm, change).is_err(), "to {to:#x}");
        let memory = AnonymousMemory::with_layout(&[(0, 1), (to, 2)]).unwrap();
        let child = Arc::new(memory);
        let spec = pagefold_dedup::AttachSpec {
            domain: "test".to_owned(),
            mode: pagefold_dedup::DedupMode::On,
            memory: child,
            changes: Box::new(pagefold_dedup::Unchanging),
        };
        assert!(engine.attach(VmId(7), spec).is_err(), "a region at {to:#x}");
    }
    assert!(AnonymousMemory::with_layout(&[(0, u32::MAX), (1 << 50, 1)]).is_err());
    assert_unharmed(&engine, &vms);
}

#[test]
fn slots_that_no_store_has_are_refused() {
    let (mut engine, vms) = folded();
    for number in EDGES.into_iter().filter(|&number| number >= PAGES) {
        let slot = Slot(number);
        assert!(engine.move_slot("test", slot).is_err(), "{slot:?}");
        assert!(engine.recover_slot("test", slot).is_err(), "{slot:?}");
        assert!(engine.walk("test", slot, |_| ControlFlow::Continue(())).is_err(), "{slot:?}");
    }
    assert_unharmed(&engine, &vms);
}

#[test]
fn what_agents_report_beyond_their_vm_is_refused_by_a_broker() {
    const VM: VmId = VmId(0);
    let mut broker = LocalBroker::new(1 << 10, 256).unwrap();
    assert!(broker.register(VmId(1), u32::MAX).is_err(), "more than can be numbered");
    broker.register(VM, PAGES).unwrap();
    let fingerprint = broker.secret().fingerprint(&page(1));
    for (linear, page_count) in beyond() {
        for slot in EDGES.map(Slot) {
            let run = Extent { linear, slot, page_count };
            if page_count > 0 {
                assert!(broker.report(VM, &[Outcome::Merged(run)]).is_err(), "{run:?}");
            }
        }
        let gone = Outcome::Unbacked { linear, page_count };
        assert!(broker.report(VM, &[gone]).is_err(), "{gone:?}");
        if linear.0 < PAGES {
            continue;
        }
        for outcome in [Outcome::Left { linear }, Outcome::Broken { linear }] {
            assert!(broker.report(VM, &[outcome]).is_err(), "{outcome:?}");
        }
        assert!(broker.offer(VM, &[Offer { linear, fingerprint }], &mut Vec::new()).is_err());
        assert!(broker.age(VM, &[linear], &mut Vec::new()).is_err());
    }
    for slot in EDGES.map(Slot) {
        assert!(broker.fill(VM, slot, &[1; 2 * PAGE_SIZE], &mut Vec::new()).is_err(), "{slot:?}");
    }
    broker.check().unwrap();
}
