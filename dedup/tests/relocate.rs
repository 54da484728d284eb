//! Memory that moves to other host addresses while it is folded, on real mappings.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{RacedPages, TestVm, engine, page, settle};
use pagefold_dedup::{
    AnonymousMemory, AttachError, AttachSpec, DedupMode, Engine, GuestMemory, LayoutChange,
    LinearIndex, Mapping, PAGE_SIZE, PageState, RelocateError, RelocateReport, RemapError, Slot,
    Unchanging, VmId,
};

const DOMAIN: &str = "test";
const PAGE: u64 = PAGE_SIZE as u64;
const ZEROES: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// Pages of a VM that were moved, from linear index `first` on, and where they are now.
struct Moved {
    vm: TestVm,
    first: u32,
    memory: Arc<AnonymousMemory>,
    report: RelocateReport,
}

impl Moved {
    fn new(engine: &mut Engine, vm: &TestVm, first: u32, page_count: u32) -> Self {
        let memory = Arc::new(AnonymousMemory::new(page_count).unwrap());
        // Nothing of the destination may be left.
        (0..page_count as usize).for_each(|page| memory.write(page * PAGE_SIZE, &[0xee]));
        let to = memory.clone();
        let report = engine.relocate(vm.id, LinearIndex(first), page_count, to).unwrap();
        engine.check().unwrap();
        Self { vm: vm.clone(), first, memory, report }
    }

    fn offset(&self, page: u32) -> usize {
        (page - self.first) as usize * PAGE_SIZE
    }

    fn host_addr(&self, page: u32) -> usize {
        self.memory.regions()[0].host_addr + self.offset(page)
    }

    fn read(&self, page: u32) -> [u8; PAGE_SIZE] {
        let mut bytes = ZEROES;
        self.memory.read(self.offset(page), &mut bytes);
        bytes
    }

    fn write(&self, page: u32, bytes: &[u8]) {
        self.memory.write(self.offset(page), bytes);
        self.vm.mark(page as usize);
    }
}

/// Two VMs of `page_count` pages, each equal to the other's and to no other, all shared.
fn twins(page_count: u32) -> (Engine, TestVm, TestVm) {
    let mut engine = engine();
    let a = TestVm::attached(&mut engine, 0, page_count);
    let b = TestVm::attached(&mut engine, 1, page_count);
    for number in 0..page_count {
        a.write(number as usize, &page(number));
        b.write(number as usize, &page(number));
    }
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, u64::from(page_count));
    (engine, a, b)
}

fn state(engine: &Engine, vm: &TestVm, gpa: u64) -> PageState {
    engine.find(vm.id, gpa).unwrap().state
}

fn slot(engine: &Engine, vm: &TestVm, gpa: u64) -> Slot {
    match state(engine, vm, gpa) {
        PageState::Shared(slot) => slot,
        other => panic!("{gpa:#x} is {other:?}"),
    }
}

/// Where a VM's guest and the host see the pages that share a slot.
fn seen(engine: &Engine, vm: &TestVm, slot: Slot) -> Vec<(u64, usize)> {
    let mut found = Vec::new();
    let visit = |mapping: &Mapping| {
        if mapping.vm == vm.id {
            found.push((mapping.gpa, mapping.host_addr));
        }
        ControlFlow::Continue(())
    };
    engine.walk(DOMAIN, slot, visit).unwrap();
    found.sort_unstable();
    found
}

fn host_addr(vm: &TestVm, page: usize) -> usize {
    vm.memory.regions()[0].host_addr + page * PAGE_SIZE
}

/// How many mappings of files are among the `page_count` pages from an address on.
fn count_files(host_addr: usize, page_count: usize) -> usize {
    let end = host_addr + page_count * PAGE_SIZE;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let is_file = |line: &&str| {
        let mut fields = line.split_ascii_whitespace();
        let (from, to) = fields.next().unwrap().split_once('-').unwrap();
        let address = |text| usize::from_str_radix(text, 16).unwrap();
        address(from) < end && host_addr < address(to) && fields.nth(3) != Some("0")
    };
    maps.lines().filter(is_file).count()
}

#[test]
fn what_was_merged_before_a_move_stays_merged_and_is_found_at_its_new_address() {
    let (mut engine, a, b) = twins(16);
    let slots: Vec<Slot> = (0..16).map(|number| slot(&engine, &a, number * PAGE)).collect();
    let before = engine.stats();
    let moved = Moved::new(&mut engine, &a, 0, 16);
    assert_eq!(moved.report, RelocateReport { mappings: 1, regions: 1 });

    settle(&mut engine);
    let after = engine.stats();
    assert_eq!((after.pages_shared, after.pages_sharing), (16, 16));
    assert_eq!(after.events, before.events, "nothing was merged or broken again");
    assert_eq!(after.vmas_used, before.vmas_used);
    assert_eq!(after.resident_bytes, before.resident_bytes, "and nothing was copied");
    for number in 0..16 {
        let gpa = u64::from(number) * PAGE;
        assert_eq!(slot(&engine, &a, gpa), slots[number as usize]);
        let found = seen(&engine, &a, slots[number as usize]);
        assert_eq!(found, [(gpa, moved.host_addr(number))]);
        let found = seen(&engine, &b, slots[number as usize]);
        assert_eq!(found, [(gpa, host_addr(&b, number as usize))]);
        assert_eq!(moved.read(number), page(number));
        assert_eq!(b.read(number as usize), page(number));
        assert_eq!(a.read(number as usize), ZEROES, "the old address");
    }
    assert_eq!(count_files(host_addr(&a, 0), 16), 0);
    assert_eq!(count_files(moved.host_addr(0), 16), 1);

    // Nobody needs the old memory any more, and its owner may unmap it.
    assert_eq!(Arc::strong_count(&a.memory), 2, "this test's two");
    drop(a);
    let Moved { vm, memory, .. } = moved;
    drop(vm);
    settle(&mut engine);
    let mut bytes = ZEROES;
    memory.read(3 * PAGE_SIZE, &mut bytes);
    assert_eq!(bytes, page(3));
}

#[test]
fn private_waiting_and_zero_pages_move_too() {
    let (mut engine, a, b) = twins(16);
    a.write(2, &page(100));
    a.write(3, &ZEROES);
    settle(&mut engine);
    // Broken after the last pass, so nobody knows yet.
    a.write(5, &page(200));
    let states = |engine: &Engine| -> Vec<PageState> {
        (0..16).map(|number| state(engine, &a, number * PAGE)).collect()
    };
    let before = states(&engine);
    assert_eq!((before[2], before[3]), (PageState::Unshared, PageState::Zero));

    let moved = Moved::new(&mut engine, &a, 0, 16);
    assert!(moved.report.mappings >= 3, "{:?}", moved.report);
    assert_eq!(states(&engine), before);
    assert_eq!((moved.read(2), moved.read(3), moved.read(5)), (page(100), ZEROES, page(200)));
    settle(&mut engine);
    assert_eq!(state(&engine, &a, 5 * PAGE), PageState::Unshared);
    for number in (0..16).filter(|number| ![2, 3, 5].contains(number)) {
        assert_eq!(moved.read(number), page(number));
    }

    // A page that waited before it moved meets its twin after.
    b.write(9, &page(100));
    settle(&mut engine);
    assert_eq!(slot(&engine, &a, 2 * PAGE), slot(&engine, &b, 9 * PAGE));
    assert_eq!(moved.read(2), page(100));
}

#[test]
fn a_moved_page_breaks_and_merges_again_like_any_other() {
    let (mut engine, a, b) = twins(16);
    let moved = Moved::new(&mut engine, &a, 0, 16);
    let before = engine.stats();

    moved.write(5, &page(50));
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_sharing, stats.events.breaks - before.events.breaks), (15, 1));
    assert_eq!((moved.read(5), b.read(5)), (page(50), page(5)));

    moved.write(5, &page(5));
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_sharing, stats.events.remerges - before.events.remerges), (16, 1));
    assert_eq!((stats.vmas_used, stats.events.errors), (before.vmas_used, 0));

    // Zero, in the middle of an extent: anonymous memory is mapped over the slot.
    moved.write(6, &ZEROES);
    settle(&mut engine);
    assert_eq!((moved.read(6), state(&engine, &a, 6 * PAGE)), (ZEROES, PageState::Zero));

    // And with new contents, over new slots.
    (0..16).for_each(|number| moved.write(number, &page(300 + number)));
    (0..16).for_each(|number| b.write(number, &page(300 + number as u32)));
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 16);
    assert_eq!(engine.stats().events.errors, 0);
    (0..16).for_each(|number| assert_eq!(moved.read(number), page(300 + number)));
}

#[test]
fn no_write_to_moved_memory_is_lost_while_it_is_merged_and_broken() {
    const PAGES: usize = 256;
    const ENOUGH: u64 = 200;
    let mut engine = engine();
    let mut a = TestVm::attached(&mut engine, 0, PAGES as u32);
    let b = TestVm::attached(&mut engine, 1, PAGES as u32);
    let mut pages = RacedPages::new(0, PAGES);
    for round in 0..4 {
        let memory = Arc::new(AnonymousMemory::new(PAGES as u32).unwrap());
        // At first nothing is merged; later some is shared, some broken and some zero.
        engine.relocate(a.id, LinearIndex(0), PAGES as u32, memory.clone()).unwrap();
        a.memory = memory;
        let before = engine.stats().events;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| pages.race(&[a.clone(), b.clone()], &stop));
            loop {
                engine.pass();
                let now = engine.stats().events;
                let done = [
                    now.merges - before.merges,
                    now.remerges - before.remerges,
                    now.breaks - before.breaks,
                    now.zero_discards - before.zero_discards,
                ];
                if done.iter().all(|&count| count > ENOUGH) || writer.is_finished() {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        engine.pass();
        engine.check().unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    assert_eq!(engine.stats().events.errors, 0);
    settle(&mut engine);
    pages.check(&[a, b], |_, _| {});
}

#[test]
fn half_of_a_region_moves_and_the_whole_moves_back() {
    let (mut engine, a, b) = twins(16);
    let slots: Vec<Slot> = (0..16).map(|number| slot(&engine, &a, number * PAGE)).collect();
    let places = |engine: &Engine| -> Vec<usize> {
        let place = |slot: &Slot| seen(engine, &a, *slot)[0].1;
        slots.iter().map(place).collect()
    };
    let half = Moved::new(&mut engine, &a, 8, 8);
    assert_eq!(half.report, RelocateReport { mappings: 1, regions: 1 });
    let expected = |number: u32| match number {
        0..8 => host_addr(&a, number as usize),
        _ => half.host_addr(number),
    };
    assert_eq!(places(&engine), (0..16).map(expected).collect::<Vec<_>>());
    for number in 0..16 {
        let (kept, gone) = if number < 8 { (page(number), None) } else { (ZEROES, Some(number)) };
        assert_eq!(a.read(number as usize), kept);
        gone.inspect(|&number| assert_eq!(half.read(number), page(number)));
    }
    assert_eq!(count_files(host_addr(&a, 0), 16), 1);
    settle(&mut engine);

    // Pages on both sides of the cut change at once and go back.
    a.write(7, &page(70));
    half.write(8, &page(80));
    settle(&mut engine);
    a.write(7, &page(7));
    half.write(8, &page(8));
    settle(&mut engine);
    assert_eq!((engine.stats().pages_sharing, engine.stats().events.errors), (16, 0));

    // Not yet: the first half is still there.
    let back = engine.relocate(a.id, LinearIndex(0), 16, a.memory.clone());
    assert!(matches!(back, Err(RelocateError::Occupied { occupant, .. }) if occupant == a.id));
    engine.check().unwrap();

    let whole = Moved::new(&mut engine, &a, 0, 16);
    assert_eq!(whole.report, RelocateReport { mappings: 2, regions: 2 });
    assert_eq!(Arc::strong_count(&half.memory), 1, "no page is left there");
    let expected: Vec<usize> = (0..16).map(|number| whole.host_addr(number)).collect();
    assert_eq!(places(&engine), expected);

    engine.relocate(a.id, LinearIndex(0), 16, a.memory.clone()).unwrap();
    settle(&mut engine);
    let expected: Vec<usize> = (0..16).map(|number| host_addr(&a, number)).collect();
    assert_eq!(places(&engine), expected);
    for number in 0..16 {
        assert_eq!(a.read(number), page(number as u32));
        assert_eq!(b.read(number), page(number as u32));
        assert_eq!(whole.read(number as u32), ZEROES);
    }
    // The kernel keeps apart what was written while it was apart. (The other VM has one mapping.)
    let vmas = count_files(host_addr(&a, 0), 16) as u64 + 1;
    assert_eq!(engine.stats().vmas_used, vmas);
    assert!(vmas <= 3, "{vmas}");
}

#[test]
fn pages_that_are_seen_at_two_addresses_move_for_both() {
    const ALIAS: u64 = 1 << 40;
    let (mut engine, a, _b) = twins(16);
    let alias = LayoutChange::Add { linear: LinearIndex(4), page_count: 8, gpa: ALIAS };
    engine.change_layout(a.id, alias).unwrap();
    let moved = Moved::new(&mut engine, &a, 6, 4);
    assert_eq!(moved.report.regions, 2);
    for number in 0..16 {
        let gpa = u64::from(number) * PAGE;
        let host_addr = match number {
            6..10 => moved.host_addr(number),
            _ => host_addr(&a, number as usize),
        };
        let mut expected = vec![(gpa, host_addr)];
        if (4..12).contains(&number) {
            expected.push((ALIAS + gpa - 4 * PAGE, host_addr));
        }
        assert_eq!(seen(&engine, &a, slot(&engine, &a, gpa)), expected);
    }
    // The pages that moved are regions of their own now.
    engine.change_layout(a.id, LayoutChange::Remove { gpa: 6 * PAGE }).unwrap();
    assert_eq!(engine.find(a.id, 9 * PAGE), None);
    assert!(engine.find(a.id, 10 * PAGE).is_some());
    engine.check().unwrap();
}

#[test]
fn a_refused_move_changes_nothing() {
    let (mut engine, a, b) = twins(16);
    let idle = TestVm::new(7, 16);
    let slots: Vec<Slot> = (0..16).map(|number| slot(&engine, &a, number * PAGE)).collect();
    let before = engine.stats();
    let refuse = |engine: &mut Engine, vm: &TestVm, first, page_count, to: &TestVm| {
        let to = to.memory.clone();
        let result = engine.relocate(vm.id, LinearIndex(first), page_count, to);
        engine.check().unwrap();
        result.unwrap_err()
    };
    let error = refuse(&mut engine, &idle, 0, 16, &idle);
    assert!(matches!(error, RelocateError::NoVm(vm) if vm == idle.id), "{error:?}");
    for to in [&a, &b] {
        let error = refuse(&mut engine, &a, 0, 16, to);
        assert!(
            matches!(error, RelocateError::Occupied { occupant, .. } if occupant == to.id),
            "{error:?}"
        );
    }
    for (first, page_count) in [(0, 8), (0, 15)] {
        let error = refuse(&mut engine, &a, first, page_count, &idle);
        let RelocateError::Memory { source: RemapError::Destination { .. }, .. } = error else {
            panic!("{error:?}");
        };
    }
    for (first, page_count) in [(0, 17), (1, 16), (16, 1), (0, 0), (u32::MAX, u32::MAX)] {
        let error = refuse(&mut engine, &a, first, page_count, &idle);
        let RelocateError::Memory { source: RemapError::NoPages { .. }, .. } = error else {
            panic!("{error:?}");
        };
    }
    assert_eq!(engine.stats().events, before.events);
    assert_eq!(engine.stats().vmas_used, before.vmas_used);
    for (number, &slot) in slots.iter().enumerate() {
        let expected = (number as u64 * PAGE, host_addr(&a, number));
        assert_eq!(seen(&engine, &a, slot), [expected]);
        assert_eq!((a.read(number), b.read(number)), (page(number as u32), page(number as u32)));
        assert_eq!(idle.read(number), ZEROES);
    }
    engine.change_layout(a.id, LayoutChange::Remove { gpa: 0 }).unwrap();
    assert_eq!(engine.find(a.id, 15 * PAGE), None, "it is still one region");
}

#[test]
fn memory_that_pages_were_moved_to_is_no_other_vms() {
    let (mut engine, a, b) = twins(16);
    let moved = Moved::new(&mut engine, &a, 4, 8);
    let before = engine.stats().vms;
    // Where they went, and where the others of the same VM still are.
    for memory in [&moved.memory, &a.memory] {
        let impostor = AttachSpec {
            domain: DOMAIN.to_owned(),
            mode: DedupMode::On,
            memory: memory.clone(),
            changes: Box::new(Unchanging),
        };
        let refused = engine.attach(VmId(7), impostor);
        assert!(
            matches!(refused, Err(AttachError::Occupied { occupant, .. }) if occupant == a.id),
            "{refused:?}"
        );
        engine.detach_and_discard(VmId(7));
        engine.check().unwrap();
    }
    assert_eq!(engine.stats().vms, before);
    for number in 0..16_u32 {
        let here =
            if (4..12).contains(&number) { moved.read(number) } else { a.read(number as usize) };
        assert_eq!((here, b.read(number as usize)), (page(number), page(number)));
    }

    // All pages are gone from the old addresses, which may be another VM's now.
    let whole = Moved::new(&mut engine, &a, 0, 16);
    let mut next = a.clone();
    next.id = VmId(7);
    next.attach(&mut engine, DOMAIN, DedupMode::On);
    next.write(3, &page(3));
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 17);
    engine.detach_and_discard(next.id);
    engine.check().unwrap();
    (0..16).for_each(|number| assert_eq!(whole.read(number), page(number)));
}

#[test]
fn a_vm_that_ends_after_a_move_leaves_no_mapping_of_the_store() {
    let (mut engine, a, b) = twins(16);
    let moved = Moved::new(&mut engine, &a, 4, 8);
    engine.detach_and_discard(a.id);
    settle(&mut engine);
    assert_eq!(count_files(host_addr(&a, 0), 16) + count_files(moved.host_addr(4), 8), 0);
    (4..12).for_each(|number| assert_eq!(moved.read(number), ZEROES));
    assert_eq!(Arc::strong_count(&moved.memory), 1);
    (0..16).for_each(|number| assert_eq!(b.read(number), page(number as u32)));
    assert_eq!(engine.stats().pages_sharing, 0);
}

// The kernel's rmap.c, ksm_and_mremap (docs/kernel-selftests.md).
#[test]
fn thirty_two_equal_pages_are_on_one_slot_after_half_moved_over_the_other_half() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 32);
    (0..32).for_each(|number| vm.write(number, &page(1)));
    settle(&mut engine);
    let one = slot(&engine, &vm, 0);
    assert_eq!(seen(&engine, &vm, one).len(), 32);

    // mremap(map + 16 pages, 16 pages, 16 pages, MREMAP_MAYMOVE | MREMAP_FIXED, map), as the guest
    // sees it and as the host does.
    let split = LayoutChange::Split { gpa: 0, page_count: 16 };
    engine.change_layout(vm.id, split).unwrap();
    engine.change_layout(vm.id, LayoutChange::Remove { gpa: 0 }).unwrap();
    engine.discard(vm.id, LinearIndex(0), 16).unwrap();
    let moved = Moved::new(&mut engine, &vm, 16, 16);
    let over = LayoutChange::Move { gpa: 16 * PAGE, to_gpa: 0 };
    engine.change_layout(vm.id, over).unwrap();
    settle(&mut engine);

    let expected: Vec<(u64, usize)> =
        (16..32).map(|number| (u64::from(number - 16) * PAGE, moved.host_addr(number))).collect();
    assert_eq!(seen(&engine, &vm, one), expected);
    assert_eq!((engine.stats().pages_shared, engine.stats().pages_sharing), (1, 15));

    // What the kernel calls the migration of the page.
    let report = engine.move_slot(DOMAIN, one).unwrap();
    engine.check().unwrap();
    assert_eq!((report.moved_pages, report.left_pages), (16, 0));
    let one = report.to;
    assert_eq!(seen(&engine, &vm, one), expected);
    for number in 16..32 {
        let gpa = u64::from(number - 16) * PAGE;
        let found = engine.find(vm.id, gpa).unwrap();
        assert_eq!((found.linear, found.state), (LinearIndex(number), PageState::Shared(one)));
        assert_eq!(moved.read(number), page(1));
    }
    assert_eq!(engine.find(vm.id, 16 * PAGE), None);
}

#[test]
fn a_page_that_moved_away_does_not_hold_its_slot_when_all_others_have_gone() {
    // Hugh Dickins's case for KSM: pages moved by mremap that the reverse map did not find were never
    // reclaimed (docs/kernel-selftests.md).
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 3);
    (0..2).for_each(|number| vm.write(number, &page(0x77)));
    settle(&mut engine);
    let moved = Moved::new(&mut engine, &vm, 1, 1);
    assert_eq!((engine.stats().pages_shared, engine.stats().pages_sharing), (1, 1));

    let more = TestVm::new(1, 128);
    more.attach(&mut engine, DOMAIN, DedupMode::On);
    (0..128).for_each(|number| more.write(number, &page(0x77)));
    settle(&mut engine);
    assert_eq!((engine.stats().pages_shared, engine.stats().pages_sharing), (1, 129));
    let one = slot(&engine, &vm, 0);
    assert_eq!(seen(&engine, &vm, one), [(0, host_addr(&vm, 0)), (PAGE, moved.host_addr(1))]);
    assert_eq!(seen(&engine, &more, one).len(), 128);

    // Every sharer leaves, the moved page last.
    engine.detach_and_discard(more.id);
    vm.write(0, &page(1));
    moved.write(1, &page(2));
    settle(&mut engine);
    assert_eq!((engine.stats().pages_shared, engine.stats().pages_sharing), (0, 0));
    assert_eq!(engine.stats().domains[0].store_bytes, Some(0));
    assert_eq!((vm.read(0), moved.read(1)), (page(1), page(2)));
}
