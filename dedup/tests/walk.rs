//! The reverse walk on real mappings: what shares a slot, and where its guest sees it.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use common::{TestVm, engine, page, settle, sharing_limit};
use pagefold_dedup::errors::LayoutError;
use pagefold_dedup::internals::Regions;
use pagefold_dedup::{
    AttachError, DedupMode, Engine, GuestMemory, LayoutChange, LayoutChangeError, LinearIndex,
    Mapping, PAGE_SIZE, PageState, Slot, WalkError, WalkReport,
};

const DOMAIN: &str = "test";

fn walk(engine: &Engine, slot: Slot) -> (Vec<Mapping>, WalkReport) {
    let mut found = Vec::new();
    let report = engine.walk(DOMAIN, slot, |mapping| {
        found.push(*mapping);
        ControlFlow::Continue(())
    });
    found.sort_unstable();
    (found, report.unwrap())
}

fn state(engine: &Engine, vm: &TestVm, gpa: u64) -> Option<PageState> {
    engine.find(vm.id, gpa).map(|found| found.state)
}

/// Every mapping of every slot, by looking at each page of each region of each VM.
fn enumerate(engine: &Engine, vms: &[&TestVm]) -> BTreeMap<Slot, Vec<Mapping>> {
    let mut mappings: BTreeMap<Slot, Vec<Mapping>> = BTreeMap::new();
    for vm in vms {
        let regions = Regions::of(vm.memory.regions()).unwrap();
        regions.all(|region| {
            for number in 0..region.page_count {
                let skip = number as usize * PAGE_SIZE;
                let gpa = region.gpa + skip as u64;
                let found = engine.find(vm.id, gpa).unwrap();
                assert_eq!(found.linear, region.linear.offset(number));
                assert_eq!(found.domain, DOMAIN);
                if let PageState::Shared(slot) = found.state {
                    let (vm, linear, host_addr) = (vm.id, found.linear, region.host_addr + skip);
                    let mapping = Mapping { vm, linear, gpa, host_addr };
                    mappings.entry(slot).or_default().push(mapping);
                }
            }
            ControlFlow::Continue(())
        });
    }
    for mappings in mappings.values_mut() {
        mappings.sort_unstable();
    }
    mappings
}

/// A place for each of `count` regions of `page_count` pages, apart and in no order.
fn scattered(count: u64, page_count: u32) -> Vec<(u64, u32)> {
    let stride = u64::from(page_count) * 2 * PAGE_SIZE as u64;
    (0..count).map(|number| (number * 7919 % count * stride, page_count)).collect()
}

#[test]
fn a_walk_finds_every_mapping_of_a_slot_and_no_other() {
    let mut engine = engine();
    let vms: Vec<TestVm> = (0..4).map(|id| TestVm::attached(&mut engine, id, 64)).collect();
    for (id, vm) in vms.iter().enumerate() {
        // Contents with one to four sharers, some of them more than once in one VM.
        (0..64).for_each(|number| vm.write(number, &page((number * (id + 1) / 3) as u32)));
    }
    settle(&mut engine);

    let expected = enumerate(&engine, &vms.iter().collect::<Vec<_>>());
    assert_eq!(expected.len() as u64, engine.stats().pages_shared);
    for (slot, mappings) in &expected {
        let (found, report) = walk(&engine, *slot);
        assert_eq!(&found, mappings);
        let count = mappings.len() as u64;
        assert_eq!(
            (report.items, report.mappings, report.intervals_visited),
            (count, count, count)
        );
        assert!(!report.stopped && count >= 2);
        let bytes = |mapping: &Mapping| vms[mapping.vm.0 as usize].read(mapping.linear.0 as usize);
        assert!(found.iter().all(|mapping| bytes(mapping) == bytes(&found[0])));
    }
}

#[test]
fn a_walk_stops_when_it_is_told_to() {
    let mut engine = engine();
    let vms: Vec<TestVm> = (0..5).map(|id| TestVm::attached(&mut engine, id, 4)).collect();
    for vm in &vms {
        vm.write(1, &page(1));
    }
    settle(&mut engine);
    let Some(PageState::Shared(slot)) = state(&engine, &vms[0], PAGE_SIZE as u64) else {
        panic!("a page of five is not shared");
    };
    let mut calls = 0;
    let report = engine.walk(DOMAIN, slot, |_| {
        calls += 1;
        if calls == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let report = report.unwrap();
    assert_eq!((calls, report.items, report.mappings, report.intervals_visited), (2, 2, 2, 2));
    assert!(report.stopped);
    assert_eq!(walk(&engine, slot).0.len(), 5);
}

// The benchmark `walk` prints the times.
#[test]
fn a_walk_among_twenty_thousand_regions_visits_one_for_each_sharer() {
    const REGIONS: u64 = 20_000;
    let mut engine = engine();
    let many = TestVm::with_layout(0, &scattered(REGIONS, 3));
    many.attach(&mut engine, DOMAIN, DedupMode::On);
    let one = TestVm::attached(&mut engine, 1, 512);
    for number in 0..512 {
        one.write(number, &page(number as u32));
        many.write(number * 113, &page(number as u32));
    }
    // Three sharers, two of them in the VM with many regions.
    many.write(59_999, &page(100));
    settle(&mut engine);

    let expected = enumerate(&engine, &[&many, &one]);
    assert_eq!(expected.len(), 512);
    for (slot, mappings) in &expected {
        let (found, report) = walk(&engine, *slot);
        assert_eq!(&found, mappings);
        assert!(report.intervals_visited <= 3, "{report:?}");
        // The way down trees of 20,000 nodes and of one.
        assert!(report.nodes_visited <= 2 * 2 * 20 + 1, "{report:?}");
    }
    // Guests read what they wrote, at whatever address.
    (0..512).for_each(|number| assert_eq!(many.read(number * 113), page(number as u32)));
}

#[test]
fn a_walk_is_no_longer_than_max_page_sharing() {
    let config = sharing_limit(3);
    let mut engine = Engine::new(config).unwrap();
    let vms: Vec<TestVm> = (0..8).map(|id| TestVm::attached(&mut engine, id, 8)).collect();
    for vm in &vms {
        (0..8).for_each(|number| vm.write(number, &page(number as u32)));
    }
    settle(&mut engine);
    let expected = enumerate(&engine, &vms.iter().collect::<Vec<_>>());
    assert!(expected.len() > 8, "the dups of each content have slots of their own");
    for (slot, mappings) in &expected {
        let (found, report) = walk(&engine, *slot);
        assert_eq!(&found, mappings);
        assert!(report.items <= 3);
    }
}

// More than a broker tells of in one answer.
#[test]
fn a_walk_of_thousands_of_sharers_finds_each_once_and_can_be_stopped_anywhere() {
    const PAGES: u32 = 2500;
    let mut engine = Engine::new(sharing_limit(PAGES)).unwrap();
    let vm = TestVm::attached(&mut engine, 0, PAGES);
    (0..PAGES).for_each(|number| vm.write(number as usize, &page(1)));
    settle(&mut engine);
    let Some(PageState::Shared(slot)) = state(&engine, &vm, 0) else {
        panic!("a page of thousands is not shared");
    };
    let (found, report) = walk(&engine, slot);
    assert_eq!(Some(&found), enumerate(&engine, &[&vm]).get(&slot));
    assert_eq!((found.len(), report.items), (PAGES as usize, u64::from(PAGES)));
    for stop in [1_u64, 1024, 1025, 2048, 2499] {
        let mut calls = 0;
        let report = engine.walk(DOMAIN, slot, |_| {
            calls += 1;
            if calls == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let report = report.unwrap();
        assert_eq!((calls, report.items, report.stopped), (stop, stop, true));
    }
    let to = engine.move_slot(DOMAIN, slot).unwrap();
    assert_eq!((to.moved_pages, to.left_pages), (u64::from(PAGES), 0));
    engine.check().unwrap();
}

#[test]
fn a_page_that_was_written_is_not_found_after_the_next_pass() {
    let mut engine = engine();
    let vms: Vec<TestVm> = (0..3).map(|id| TestVm::attached(&mut engine, id, 2)).collect();
    for vm in &vms {
        vm.write(0, &page(7));
    }
    settle(&mut engine);
    let Some(PageState::Shared(slot)) = state(&engine, &vms[1], 0) else {
        panic!("a page of three is not shared");
    };
    vms[1].write(0, &page(8));
    engine.pass();
    assert_eq!(state(&engine, &vms[1], 0), Some(PageState::Volatile));
    let (found, _) = walk(&engine, slot);
    assert_eq!(found.iter().map(|mapping| mapping.vm.0).collect::<Vec<_>>(), [0, 2]);
    assert!(found.iter().all(|mapping| mapping.linear == LinearIndex(0)));
}

#[test]
fn a_page_is_found_by_address_in_the_state_it_is_in() {
    const AT: u64 = 1 << 32;
    let mut engine = engine();
    let vm = TestVm::with_layout(0, &[(0, 2), (AT, 4)]);
    vm.attach(&mut engine, DOMAIN, DedupMode::On);
    vm.write(1, &page(1));
    vm.write(2, &page(1));
    vm.write(3, &page(3));
    vm.write(4, &[0; PAGE_SIZE]);
    settle(&mut engine);
    let page_size = PAGE_SIZE as u64;
    let first = state(&engine, &vm, page_size + 17).unwrap();
    assert!(matches!(first, PageState::Shared(_)), "{first:?}");
    assert_eq!(state(&engine, &vm, AT), Some(first), "twins on both sides of a hole");
    assert_eq!(state(&engine, &vm, AT + page_size), Some(PageState::Unshared));
    assert_eq!(state(&engine, &vm, AT + 2 * page_size), Some(PageState::Zero));
    assert_eq!(state(&engine, &vm, AT + 3 * page_size), Some(PageState::Loose), "never touched");
    assert_eq!(engine.find(vm.id, 2 * page_size), None, "the hole");
    assert_eq!(engine.find(vm.id, AT + 4 * page_size), None);
    engine.detach_and_discard(vm.id);
    assert_eq!(engine.find(vm.id, 0), None);
}

#[test]
fn what_is_not_there_is_not_walked() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 2);
    let visit = |_: &Mapping| -> ControlFlow<()> { panic!("there is nothing to visit") };
    for slot in [Slot(0), Slot(u32::MAX)] {
        let empty = WalkError::EmptySlot { domain: DOMAIN.to_owned(), slot };
        assert_eq!(engine.walk(DOMAIN, slot, visit), Err(empty));
    }
    let unknown = WalkError::NoDomain("other".to_owned());
    assert_eq!(engine.walk("other", Slot(0), visit), Err(unknown));
    engine.detach_and_discard(vm.id);
    assert!(engine.walk(DOMAIN, Slot(0), visit).is_err());
}

#[test]
fn memory_that_would_be_seen_twice_at_one_address_is_refused() {
    let mut engine = engine();
    let vm = TestVm::with_layout(0, &[(0, 4), (PAGE_SIZE as u64 * 3, 4)]);
    let refused = vm.try_attach(&mut engine, DOMAIN, DedupMode::On);
    assert!(matches!(refused, Err(AttachError::Agent { .. })), "{refused:?}");
    assert_eq!(engine.vms().count(), 0);
    assert_eq!(engine.stats().domains.len(), 0);
}

#[test]
fn a_page_is_found_wherever_its_guest_sees_it_now() {
    const ELSEWHERE: u64 = 1 << 40;
    const ALIAS: u64 = 1 << 41;
    let page_size = PAGE_SIZE as u64;
    let mut engine = engine();
    let vms: Vec<TestVm> = (0..2).map(|id| TestVm::attached(&mut engine, id, 16)).collect();
    for vm in &vms {
        (0..16).for_each(|number| vm.write(number, &page(number as u32)));
    }
    settle(&mut engine);
    let vm = vms[1].id;
    let slots: Vec<Slot> = (0..16)
        .map(|number| match state(&engine, &vms[0], number * page_size) {
            Some(PageState::Shared(slot)) => slot,
            other => panic!("page {number} is {other:?}"),
        })
        .collect();
    let seen = |engine: &Engine, number: usize| -> Vec<u64> {
        let (found, report) = walk(engine, slots[number]);
        assert_eq!((report.items, report.intervals_visited), (2, found.len() as u64));
        let host = |mapping: &Mapping| vms[mapping.vm.0 as usize].read(number);
        assert!(found.iter().all(|mapping| host(mapping) == page(number as u32)));
        found.iter().filter(|mapping| mapping.vm == vm).map(|mapping| mapping.gpa).collect()
    };

    // A part moves after the merge. An index worked out from where the page is now would miss it.
    engine.change_layout(vm, LayoutChange::Split { gpa: 0, page_count: 8 }).unwrap();
    let half = 8 * page_size;
    let to_elsewhere = LayoutChange::Move { gpa: half, to_gpa: ELSEWHERE };
    engine.change_layout(vm, to_elsewhere).unwrap();
    engine.check().unwrap();
    assert_eq!(seen(&engine, 3), [3 * page_size]);
    assert_eq!(seen(&engine, 11), [ELSEWHERE + 3 * page_size]);
    assert_eq!(engine.find(vm, 11 * page_size), None);
    let moved = engine.find(vm, ELSEWHERE + 3 * page_size).unwrap();
    assert_eq!((moved.linear, moved.state), (LinearIndex(11), PageState::Shared(slots[11])));

    // Another is seen at a second address, then there alone.
    let linear = LinearIndex(6);
    let alias = LayoutChange::Add { linear, page_count: 4, gpa: ALIAS };
    engine.change_layout(vm, alias).unwrap();
    engine.check().unwrap();
    assert_eq!(seen(&engine, 7), [7 * page_size, ALIAS + page_size]);
    engine.change_layout(vm, LayoutChange::Remove { gpa: 0 }).unwrap();
    assert_eq!(seen(&engine, 7), [ALIAS + page_size]);
    assert_eq!(seen(&engine, 3), [0_u64; 0], "it shares its slot, and no guest address shows it");

    // What makes no sense changes nothing.
    let refused = |engine: &mut Engine, change| match engine.change_layout(vm, change) {
        Err(LayoutChangeError::Refused { source, .. }) => source,
        other => panic!("{change:?}: {other:?}"),
    };
    let beyond = LayoutChange::Add { linear: LinearIndex(12), page_count: 5, gpa: 0 };
    assert!(matches!(refused(&mut engine, beyond), LayoutError::NoMemory(_)));
    let onto = LayoutChange::Move { gpa: ELSEWHERE, to_gpa: ALIAS + page_size };
    assert!(matches!(refused(&mut engine, onto), LayoutError::GuestOverlap { .. }));
    let absent = LayoutChange::Remove { gpa: page_size };
    assert_eq!(refused(&mut engine, absent), LayoutError::NoRegion { gpa: page_size });
    assert_eq!(seen(&engine, 11), [ELSEWHERE + 3 * page_size]);

    // Folding goes on, whatever the guest sees.
    vms[1].write(3, &page(99));
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 15);
}
