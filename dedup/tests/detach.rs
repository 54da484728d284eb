//! A VM that is not to be folded any more keeps its bytes, unless it is discarded by name.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{TestVm, engine, page, settle, twins};
use pagefold_dedup::{DedupMode, PAGE_SIZE};

const PAGES: u32 = 300;

/// The page that number `number` of VM `vm` holds: shared with the other VM's, zero, or its own.
fn bytes(vm: u32, number: u32) -> [u8; PAGE_SIZE] {
    match number % 3 {
        0 => page(number),
        1 => [0; PAGE_SIZE],
        _ => page(number + 1000 * (vm + 1)),
    }
}

fn assert_has_its_bytes(vm: &TestVm) {
    for number in 0..PAGES {
        assert_eq!(vm.read(number as usize), bytes(vm.id.0, number), "page {number}");
    }
}

/// How many of a VM's mappings are of a store.
fn store_mappings(vm: &TestVm) -> usize {
    use pagefold_dedup::GuestMemory;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let region = vm.memory.regions()[0];
    let range = region.host_addr..region.host_addr + region.len_bytes();
    let is_inside = |line: &&str| {
        let start = line.split('-').next().unwrap();
        range.contains(&usize::from_str_radix(start, 16).unwrap())
    };
    maps.lines().filter(is_inside).filter(|line| line.contains("pagefold-store")).count()
}

#[test]
fn memory_that_is_detached_keeps_its_bytes_and_is_ordinary_memory() {
    let mut engine = engine();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, PAGES));
    for vm in &vms {
        (0..PAGES).for_each(|number| vm.write(number as usize, &bytes(vm.id.0, number)));
    }
    settle(&mut engine);
    // One that was written since, so that it lies over its slot and does not share it.
    vms[0].write(3, &bytes(0, 3));
    assert!(store_mappings(&vms[0]) > 50);
    let before = engine.stats().vms[0].private_bytes.unwrap();

    engine.detach(vms[0].id).unwrap();
    assert_has_its_bytes(&vms[0]);
    assert_eq!(store_mappings(&vms[0]), 0);
    engine.check().unwrap();
    let stats = engine.stats();
    assert_eq!((stats.vms.len(), stats.pages_sharing), (1, 0));
    assert!(before < u64::from(PAGES) * PAGE_SIZE as u64);

    // It is the embedder's: written, discarded, folded again, as any other.
    vms[0].write(0, &page(7));
    assert_eq!(vms[1].read(0), page(0));
    vms[0].write(0, &page(0));
    vms[0].attach(&mut engine, "test", DedupMode::On);
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES) / 3);
    vms.iter().for_each(assert_has_its_bytes);

    engine.detach_and_discard(vms[1].id);
    assert_eq!(vms[1].read(0), [0; PAGE_SIZE], "discarded by name");
    engine.detach(vms[0].id).unwrap();
    engine.detach(vms[0].id).unwrap();
    assert_has_its_bytes(&vms[0]);
    assert_eq!((engine.stats().domains.len(), engine.stats().vmas_used), (0, 0));
}

#[test]
fn a_guest_that_writes_while_it_is_detached_loses_nothing() {
    let mut engine = engine();
    let vms = twins(&mut engine, PAGES);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut round = 0_u64;
            let mut last = vec![None; PAGES as usize];
            while !is_over.load(Ordering::Relaxed) {
                let number = usize::try_from(round * 7 % u64::from(PAGES)).unwrap();
                let before = vms[0].swap(number, round);
                assert!(last[number].is_none_or(|last| last == before), "page {number}");
                last[number] = Some(round);
                round += 1;
            }
        });
        for _ in 0..20 {
            engine.pass();
            engine.pass();
            engine.detach(vms[0].id).unwrap();
            assert_eq!(store_mappings(&vms[0]), 0);
            vms[0].attach(&mut engine, "test", DedupMode::On);
        }
        is_over.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
    engine.check().unwrap();
    (0..PAGES).for_each(|number| assert_eq!(vms[1].read(number as usize), page(number)));
}
