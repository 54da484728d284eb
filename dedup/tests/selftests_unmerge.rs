//! The kernel's `ksm_functional_tests` on real mappings: pages that get their own memory again. Which test
//! of the kernel's is rebuilt where: docs/kernel-selftests.md.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

use common::{TestVm, engine, page, settle};
use pagefold_dedup::{
    DedupMode, Engine, GuestMemory, Knobs, LayoutChange, LinearIndex, PAGE_SIZE, Run, Step,
};

const ZEROES: [u8; PAGE_SIZE] = [0; PAGE_SIZE];
/// What `/proc/self/pagemap` says of a page: that it is there, and in which frame.
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// The frame behind each page of a VM in one piece; `None` where there is none.
fn frames(vm: &TestVm) -> Vec<Option<u64>> {
    let region = vm.memory.regions()[0];
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    let mut entries = vec![0; region.page_count as usize * size_of::<u64>()];
    let first = region.host_addr / PAGE_SIZE * size_of::<u64>();
    pagemap.read_exact_at(&mut entries, first as u64).unwrap();
    let (entries, _) = entries.as_chunks::<8>();
    let frame = |entry: u64| {
        assert_ne!(entry & FRAME, 0, "the kernel tells frames to root only");
        entry & FRAME
    };
    let entries = entries.iter().map(|entry| u64::from_ne_bytes(*entry));
    entries.map(|entry| (entry & PRESENT != 0).then(|| frame(entry))).collect()
}

/// The pages that are there, each of which must be in a frame of its own.
fn count_distinct(vms: &[&TestVm]) -> usize {
    let all: Vec<u64> = vms.iter().flat_map(|vm| frames(vm)).flatten().collect();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "pages share a frame");
    all.len()
}

fn run(engine: &mut Engine, run: Run) {
    let knobs = Knobs { run, ..engine.knobs() };
    engine.set_knobs(knobs).unwrap();
}

/// Gives every page its own memory.
fn unmerge(engine: &mut Engine) {
    run(engine, Run::Unmerge);
    for _ in 0..2 {
        assert!(engine.pass().errors.is_empty());
    }
    engine.check().unwrap();
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing, stats.pages_zero), (0, 0, 0));
    assert_eq!(stats.domains[0].store_bytes, Some(0), "the store keeps nothing");
}

/// A VM whose pages are all equal, and shared.
fn uniform(engine: &mut Engine, id: u32, page_count: u32) -> TestVm {
    let vm = TestVm::attached(engine, id, page_count);
    (0..page_count as usize).for_each(|number| vm.write(number, &[0xcf; PAGE_SIZE]));
    settle(engine);
    assert_eq!(engine.stats().vms[id as usize].merging_pages, u64::from(page_count));
    vm
}

// ksm_functional_tests, test_unmerge.
#[test]
fn two_mebibytes_of_one_byte_are_distinct_after_unmerging_and_read_the_same() {
    let mut engine = engine();
    let vm = uniform(&mut engine, 0, 512);
    let merged: HashSet<u64> = frames(&vm).into_iter().flatten().collect();
    assert!(merged.len() <= 2, "{} frames", merged.len());

    unmerge(&mut engine);
    assert_eq!(count_distinct(&[&vm]), 512);
    (0..512).for_each(|number| assert_eq!(vm.read(number), [0xcf; PAGE_SIZE]));
    assert_eq!(engine.stats().events.unmerges, 512);

    run(&mut engine, Run::Fold);
    settle(&mut engine);
    assert_eq!((engine.stats().pages_shared, engine.stats().pages_sharing), (2, 510));
}

// ksm_functional_tests, test_unmerge_zero_pages.
#[test]
fn zero_pages_are_counted_until_they_are_opted_out_or_written() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 128);
    (0..128).for_each(|number| vm.write(number, &ZEROES));
    settle(&mut engine);
    assert_eq!(engine.stats().vms[0].zero_pages, 128);
    assert_eq!(frames(&vm).into_iter().flatten().count(), 0);

    engine.set_mergeable(vm.id, LinearIndex(0), 64, false).unwrap();
    settle(&mut engine);
    assert_eq!(engine.stats().vms[0].zero_pages, 64);
    assert_eq!(count_distinct(&[&vm]), 64);

    (64..128).for_each(|number| vm.write(number, &page(number as u32)));
    settle(&mut engine);
    assert_eq!((engine.stats().vms[0].zero_pages, engine.stats().pages_zero), (0, 0));
    assert_eq!(count_distinct(&[&vm]), 128);
    for number in 0..128 {
        let expected = if number < 64 { ZEROES } else { page(number as u32) };
        assert_eq!(vm.read(number), expected);
    }
}

// ksm_functional_tests, test_unmerge_discarded.
#[test]
fn what_was_discarded_reads_as_zero_after_the_rest_was_unmerged() {
    let mut engine = engine();
    let vm = uniform(&mut engine, 0, 512);
    let report = engine.discard(vm.id, LinearIndex(0), 256).unwrap();
    assert_eq!((report.discarded_pages, report.kept_pages), (256, 0));
    engine.check().unwrap();
    assert_eq!(engine.stats().vms[0].merging_pages, 256);

    unmerge(&mut engine);
    assert!(frames(&vm)[..256].iter().all(Option::is_none), "what was given up takes memory");
    assert_eq!(count_distinct(&[&vm]), 256);
    (0..256).for_each(|number| assert_eq!(vm.read(number), ZEROES));
    (256..512).for_each(|number| assert_eq!(vm.read(number), [0xcf; PAGE_SIZE]));
}

// ksm_functional_tests, test_prot_none.
#[test]
fn memory_that_is_closed_to_its_guest_can_be_written_by_the_host_and_unmerged() {
    let mut engine = engine();
    let vm = uniform(&mut engine, 0, 512);
    engine.change_layout(vm.id, LayoutChange::Remove { gpa: 0 }).unwrap();
    assert_eq!(engine.find(vm.id, 0), None);

    (0..256).for_each(|number| vm.write(number, &page(number as u32)));
    unmerge(&mut engine);
    assert_eq!(count_distinct(&[&vm]), 512);
    for number in 0..512 {
        let expected = if number < 256 { page(number as u32) } else { [0xcf; PAGE_SIZE] };
        assert_eq!(vm.read(number), expected);
    }
}

// ksm_functional_tests, test_prctl_unmerge.
#[test]
fn a_vm_that_is_switched_off_has_distinct_pages_and_the_others_stay_shared() {
    let mut engine = engine();
    let off = uniform(&mut engine, 0, 512);
    let on = uniform(&mut engine, 1, 512);
    engine.set_mode(off.id, DedupMode::Off).unwrap();
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.vms[0].merging_pages, stats.vms[0].unshared_pages), (0, 0));
    assert_eq!(stats.vms[1].merging_pages, 512);
    assert_eq!(count_distinct(&[&off]), 512);
    for vm in [&off, &on] {
        (0..512).for_each(|number| assert_eq!(vm.read(number), [0xcf; PAGE_SIZE]));
    }
    engine.set_mode(off.id, DedupMode::On).unwrap();
    settle(&mut engine);
    assert_eq!(engine.stats().vms[0].merging_pages, 512);
}

// The same while ksmd would be stopped: prctl(2) unmerges by itself.
#[test]
fn a_vm_that_is_switched_off_while_nothing_is_folded_has_distinct_pages_all_the_same() {
    let mut engine = engine();
    let off = uniform(&mut engine, 0, 512);
    let on = uniform(&mut engine, 1, 512);
    engine.set_knobs(Knobs { run: Run::Stop, ..engine.knobs() }).unwrap();
    engine.set_mode(off.id, DedupMode::Off).unwrap();
    engine.set_mergeable(on.id, LinearIndex(0), 100, false).unwrap();
    on.write(200, &page(200));
    assert!(matches!(engine.step(), Step::More), "a part at a time");
    while !matches!(engine.step(), Step::Stopped) {}
    let merging = |engine: &Engine| {
        let stats = engine.stats();
        (stats.vms[0].merging_pages, stats.vms[1].merging_pages)
    };
    assert_eq!(merging(&engine), (0, 411), "what was written has left its slot");
    assert_eq!(count_distinct(&[&off]), 512);
    engine.set_knobs(Knobs { run: Run::Fold, ..engine.knobs() }).unwrap();
    settle(&mut engine);
    assert_eq!(merging(&engine), (0, 411));
    assert_eq!(on.read(200), page(200));
}

// The same of zero pages: they are zero pages of the VM's own.
#[test]
fn a_vm_that_is_switched_off_has_its_own_zero_pages() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 64);
    (0..64).for_each(|number| vm.write(number, &ZEROES));
    settle(&mut engine);
    engine.set_mode(vm.id, DedupMode::Off).unwrap();
    settle(&mut engine);
    assert_eq!(engine.stats().pages_zero, 0);
    assert_eq!(count_distinct(&[&vm]), 64);
    (0..64).for_each(|number| assert_eq!(vm.read(number), ZEROES));
}

#[test]
fn pages_that_nobody_is_to_fold_are_not_volatile() {
    let mut engine = engine();
    let off = TestVm::new(0, 1000);
    off.attach(&mut engine, "test", DedupMode::Off);
    let part = TestVm::attached(&mut engine, 1, 1000);
    engine.set_mergeable(part.id, LinearIndex(0), 500, false).unwrap();
    settle(&mut engine);
    for vm in [&off, &part] {
        (490..510).for_each(|number| vm.write(number, &page(number as u32)));
    }
    engine.pass();
    let stats = engine.stats();
    assert_eq!((stats.vms[0].volatile_pages, stats.vms[1].volatile_pages), (0, 10));
}

// The kernel frees rmap_items, too, and only scans count as scans.
#[test]
fn nothing_is_remembered_of_pages_that_were_all_unmerged() {
    let mut engine = engine();
    engine.pass();
    assert_eq!(engine.stats().full_scans, 0, "there was nothing to scan");
    let vms = [uniform(&mut engine, 0, 512), uniform(&mut engine, 1, 512)];
    let before = engine.stats();
    assert_eq!((before.vms[0].rmap_items, before.vms[1].rmap_items), (512, 512));
    engine.set_mode(vms[0].id, DedupMode::Off).unwrap();
    settle(&mut engine);
    assert_eq!(engine.stats().vms[0].rmap_items, 0);
    let scans = engine.stats().full_scans;
    unmerge(&mut engine);
    let after = engine.stats();
    assert_eq!((after.vms[0].rmap_items, after.vms[1].rmap_items), (0, 0));
    assert_eq!(after.full_scans, scans);
    assert!(after.metadata_bytes < before.metadata_bytes);
}

// The items of a range that is not to be folded stayed until its VM was switched off.
#[test]
fn nothing_is_remembered_of_a_range_that_is_not_to_be_folded() {
    const PAGES: u32 = 5 * 4096;
    let mut engine = engine();
    let vm = uniform(&mut engine, 0, PAGES);
    let items = |engine: &Engine| engine.stats().vms[0].rmap_items;
    assert_eq!(items(&engine), u64::from(PAGES));
    // Two of the items' chunks, and a part of two others.
    engine.set_mergeable(vm.id, LinearIndex(4000), 3 * 4096, false).unwrap();
    settle(&mut engine);
    assert_eq!(items(&engine), 3 * 4096);
    // And to the end.
    engine.set_mergeable(vm.id, LinearIndex(4000), PAGES - 4000, false).unwrap();
    settle(&mut engine);
    assert_eq!(items(&engine), 4096);
    engine.check().unwrap();
    engine.set_mergeable(vm.id, LinearIndex(0), PAGES, true).unwrap();
    settle(&mut engine);
    assert_eq!((items(&engine), engine.stats().vms[0].merging_pages), (PAGES.into(), PAGES.into()));
}

// Ours: the kernel's run=2 blocks until it is done or the writer is killed.
#[test]
fn unmerging_can_be_called_off_in_the_middle_and_everything_merges_again() {
    let mut engine = engine();
    let (a, b) = (TestVm::attached(&mut engine, 0, 512), TestVm::attached(&mut engine, 1, 512));
    for number in 0..512 {
        a.write(number, &page(number as u32));
        b.write(number, &page(number as u32));
    }
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 512);

    let knobs = Knobs { pages_to_scan: 64, run: Run::Unmerge, ..engine.knobs() };
    engine.set_knobs(knobs).unwrap();
    for steps in 1..=5 {
        assert!(matches!(engine.step(), Step::More));
        engine.check().unwrap();
        let stats = engine.stats();
        assert_eq!(stats.vms[0].merging_pages, 512 - 64 * steps);
        assert_eq!(stats.vms[1].merging_pages, 512);
    }
    run(&mut engine, Run::Fold);
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing), (512, 512));
    for number in 0..512 {
        assert_eq!(a.read(number), page(number as u32));
        assert_eq!(b.read(number), page(number as u32));
    }
}

/// Mappings of this process in a VM's memory.
fn count_mappings(vm: &TestVm) -> usize {
    let region = vm.memory.regions()[0];
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let ranges = maps.lines().filter_map(|line| {
        let (start, rest) = line.split_once('-')?;
        let (end, _) = rest.split_once(' ')?;
        Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
    });
    let region = region.host_addr..region.host_addr + region.len_bytes();
    ranges.filter(|&(start, end)| start < region.end && region.start < end).count()
}

// Ours: what a balloon takes does not leave a mapping behind.
#[test]
fn discarding_a_whole_extent_gives_its_mapping_back() {
    let mut engine = engine();
    let (a, b) = (TestVm::attached(&mut engine, 0, 64), TestVm::attached(&mut engine, 1, 64));
    for number in 0..64 {
        a.write(number, &page(number as u32));
        let twin = (16..32).contains(&number);
        b.write(number, &page(number as u32 + if twin { 0 } else { 1000 }));
    }
    settle(&mut engine);
    assert_eq!((engine.stats().vms[0].vmas, count_mappings(&a)), (3, 3));

    let report = engine.discard(a.id, LinearIndex(16), 16).unwrap();
    assert_eq!((report.discarded_pages, report.kept_pages), (16, 0));
    engine.check().unwrap();
    let stats = engine.stats();
    assert_eq!((stats.vms[0].extents, stats.vms[0].vmas, count_mappings(&a)), (0, 1, 1));
    assert_eq!((stats.pages_shared, stats.pages_sharing), (16, 0));
    (16..32).for_each(|number| assert_eq!(a.read(number), ZEROES));
    (16..32).for_each(|number| assert_eq!(b.read(number), page(number as u32)));

    a.write(20, &page(20));
    settle(&mut engine);
    assert_eq!((engine.stats().pages_sharing, a.read(20)), (1, page(20)));
}
