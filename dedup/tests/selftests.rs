//! The kernel's `rmap` test with clones for processes, and bytes that stay what they are, on real
//! mappings. Which test of the kernel's is rebuilt where: docs/kernel-selftests.md.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use common::{TestVm, check_counters, config, engine, page, settle, sharers, slot};
use pagefold_dedup::{
    CompactScope, Engine, EngineConfig, Knobs, LinearIndex, PAGE_SIZE, PageState, Run, Unchanging,
    VmId,
};

// rmap.c, migrate, with a slot that moves for a page that migrates.
#[test]
fn every_one_of_a_tree_of_clones_sees_a_moved_slot_and_the_same_bytes() {
    const LEVELS: u32 = 5;
    const CHILDREN: usize = 3;
    let mut engine = engine();
    let root = TestVm::attached(&mut engine, 0, 4);
    (0..3).for_each(|number| root.write(number, &page(number as u32)));
    let mut vms = vec![root];
    let mut level = 0..1;
    for depth in 1..LEVELS {
        let parents = level.clone();
        level = vms.len()..vms.len() + parents.len() * CHILDREN;
        for parent in parents {
            for _ in 0..CHILDREN {
                let child = TestVm::new(vms.len() as u32, 4);
                let memory = child.memory.clone();
                let parent = vms[parent].id;
                engine.attach_clone(parent, child.id, memory, Box::new(Unchanging)).unwrap();
                vms.push(child);
            }
        }
        // Some are cloned from pages of their own, some from slots.
        if depth % 2 == 0 {
            settle(&mut engine);
        }
    }
    assert_eq!(vms.len(), 121);
    settle(&mut engine);
    assert_eq!((engine.stats().pages_shared, engine.stats().pages_sharing), (3, 3 * 120));

    let all: BTreeSet<VmId> = vms.iter().map(|vm| vm.id).collect();
    for number in 0..3 {
        let old = slot(&engine, VmId(0), number);
        assert_eq!(sharers(&engine, old), all);
        let report = engine.move_slot("test", old).unwrap();
        assert_eq!((report.moved_pages, report.left_pages), (121, 0));
        assert_ne!(report.to, old);
        check_counters(&engine);
        assert_eq!(sharers(&engine, report.to), all);
        for vm in &vms {
            assert_eq!(slot(&engine, vm.id, number), report.to);
            assert_eq!(vm.read(number), page(number as u32));
        }
        let gone = engine.walk("test", old, |_| ControlFlow::Continue(()));
        assert!(gone.is_err(), "the old slot is in use: {gone:?}");
    }

    // A parent that ends takes nothing from its children.
    engine.detach_and_discard(VmId(0));
    settle(&mut engine);
    check_counters(&engine);
    assert_eq!((engine.stats().pages_shared, engine.stats().pages_sharing), (3, 3 * 119));
    vms[1..].iter().for_each(|vm| assert_eq!(vm.read(2), page(2)));
}

/// A number from the last.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The hash of all that each VM's guest can read.
fn hashes(vms: &[TestVm], page_count: usize) -> Vec<blake3::Hash> {
    let hash = |vm: &TestVm| {
        let mut hasher = blake3::Hasher::new();
        (0..page_count).for_each(|number| {
            hasher.update(&vm.read(number));
        });
        hasher.finalize()
    };
    vms.iter().map(hash).collect()
}

// With pages that a test writes; `tests/tests/bytes_unchanged.rs` does it with guests.
#[test]
fn the_bytes_of_every_vm_are_equal_before_and_after_any_amount_of_folding() {
    const PAGES: usize = 256;
    let knobs = Knobs { max_page_sharing: 4, ..Knobs::default() };
    let mut engine = Engine::new(EngineConfig { knobs, ..config() }).unwrap();
    let vms: Vec<TestVm> =
        (0..4).map(|id| TestVm::attached(&mut engine, id, PAGES as u32)).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..4 {
        for vm in &vms {
            for number in 0..PAGES {
                // Runs that are alike in all, zeroes, a few contents many times, and singles.
                match next(&mut random) % 8 {
                    0 => vm.write(number, &[0; PAGE_SIZE]),
                    1 | 2 => vm.write(number, &page(next(&mut random) as u32 % 12)),
                    3 => vm.write(number, &page(next(&mut random) as u32)),
                    4 | 5 => vm.write(number, &page(1000 + number as u32)),
                    _ => {}
                }
            }
        }
        let expected = hashes(&vms, PAGES);
        let same = |engine: &Engine, after: &str| {
            engine.check().unwrap();
            assert_eq!(hashes(&vms, PAGES), expected, "after {after}, round {round}");
        };
        engine.pass();
        same(&engine, "one pass");
        settle(&mut engine);
        same(&engine, "folding");
        assert!(engine.stats().pages_sharing > 100);
        engine.compact(CompactScope::Gainful);
        same(&engine, "a compaction of what gains");
        engine.compact(CompactScope::All);
        same(&engine, "a compaction of all");
        for number in (0..PAGES).step_by(9) {
            if let Some(PageState::Shared(slot)) =
                engine.find(vms[1].id, (number * PAGE_SIZE) as u64).map(|found| found.state)
            {
                engine.move_slot("test", slot).unwrap();
            }
        }
        same(&engine, "moves");
        engine.set_mergeable(vms[2].id, LinearIndex(64), 64, round % 2 == 1).unwrap();
        settle(&mut engine);
        same(&engine, "opting out or in");
        engine.set_knobs(Knobs { run: Run::Unmerge, ..engine.knobs() }).unwrap();
        engine.pass();
        same(&engine, "unmerging");
        assert_eq!(engine.stats().saved_bytes, 0);
        engine.set_knobs(Knobs { run: Run::Fold, ..engine.knobs() }).unwrap();
        settle(&mut engine);
        same(&engine, "folding again");
    }
}
