//! What memory VMs take is counted while the engine is in use.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{TestVm, engine};
use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{DedupMode, Engine, GuestMemory, MemoryCount, PAGE_SIZE, UnfoldedVm, VmId};

const PAGES: u32 = 64;

/// Pages of a VM of which each has a twin in another.
fn twins(id: u32, engine: &mut Engine) -> TestVm {
    let vm = TestVm::attached(engine, id, PAGES);
    (1..=32).for_each(|page| vm.write(page.into(), &[page; PAGE_SIZE]));
    vm
}

fn private_pages(stats: &DedupStats) -> Vec<(u32, u64)> {
    let page_count = |vm: &pagefold_dedup::stats::VmStats| vm.private_bytes.unwrap() / 4096;
    stats.vms.iter().map(|vm| (vm.id, page_count(vm))).collect()
}

#[test]
fn the_engine_works_while_memory_is_counted() {
    let mut engine = engine();
    let _vms = [twins(0, &mut engine), twins(1, &mut engine)];
    let (mut count, nobody) = (MemoryCount::default(), BTreeMap::new());
    assert!(engine.stats_with(&mut count, &nobody).is_none(), "nothing is counted yet");
    thread::scope(|scope| {
        let counting = scope.spawn(|| count.run());
        assert!(engine.settle(Duration::from_mins(1), Duration::ZERO).settled);
        counting.join().unwrap();
    });
    // What the count is of may be old, all else is not.
    let stats = engine.stats_with(&mut count, &nobody).unwrap();
    assert_eq!(stats.pages_sharing, u64::from(PAGES / 2));
    assert!(stats.vms.iter().all(|vm| vm.merging_pages == u64::from(PAGES / 2)), "{stats:#?}");
    assert_eq!(private_pages(&engine.stats()), [(0, 0), (1, 0)]);
}

#[test]
fn memory_that_came_or_moved_meanwhile_is_counted_before_there_are_statistics() {
    let mut engine = engine();
    let mut vms = vec![twins(0, &mut engine), twins(1, &mut engine)];
    let (mut count, nobody) = (MemoryCount::default(), BTreeMap::new());
    assert!(engine.stats_with(&mut count, &nobody).is_none());
    count.run();
    // One goes, another comes with its number, and a third one.
    engine.detach(VmId(1)).unwrap();
    vms.push(TestVm::attached(&mut engine, 1, PAGES));
    vms[2].write(3, &[7; PAGE_SIZE]);
    vms.push(twins(2, &mut engine));
    assert!(engine.stats_with(&mut count, &nobody).is_none(), "two are not counted");
    count.run();
    let stats = engine.stats_with(&mut count, &nobody).unwrap();
    assert_eq!(private_pages(&stats), [(0, 32), (1, 1), (2, 32)]);
    // One that has gone is not in them.
    engine.detach(VmId(2)).unwrap();
    let stats = engine.stats_with(&mut count, &nobody).unwrap();
    assert_eq!(private_pages(&stats), [(0, 32), (1, 1)]);
    assert_eq!(stats.resident_bytes, Some(33 * PAGE_SIZE as u64));
}

#[test]
fn vms_that_are_not_attached_are_counted_unless_they_are() {
    let mut engine = engine();
    let attached = twins(1, &mut engine);
    let other = TestVm::new(0, PAGES);
    other.write(5, &[5; PAGE_SIZE]);
    let unfolded = |vm: &TestVm| UnfoldedVm {
        domain: "test".to_owned(),
        memory: Arc::clone(&vm.memory) as Arc<dyn GuestMemory>,
    };
    let unfolded = BTreeMap::from([(VmId(0), unfolded(&other)), (VmId(1), unfolded(&attached))]);
    let mut count = MemoryCount::default();
    let stats = loop {
        match engine.stats_with(&mut count, &unfolded) {
            Some(stats) => break stats,
            None => count.run(),
        }
    };
    assert_eq!(private_pages(&stats), [(0, 1), (1, 32)]);
    let modes: Vec<&str> = stats.vms.iter().map(|vm| vm.mode.as_str()).collect();
    assert_eq!(modes, [DedupMode::Off.to_string(), DedupMode::On.to_string()]);
}
