//! The kernel's `ksm_tests` and the `prctl` half of its functional tests, on real mappings: what may
//! be shared, and who says so. Which test of the kernel's is rebuilt where: docs/kernel-selftests.md.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use common::{TestVm, config, engine, page, settle};
use pagefold_dedup::{
    AttachError, CloneError, DedupMode, Engine, EngineConfig, KnobError, Knobs, LinearIndex,
    PAGE_SIZE, Run, Unchanging, VmId,
};

const ZEROES: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

fn engine_with(knobs: Knobs) -> Engine {
    Engine::new(EngineConfig { knobs, ..config() }).unwrap()
}

/// A copy of a VM, which nobody writes.
fn clone_of(engine: &mut Engine, parent: &TestVm, id: u32) -> TestVm {
    let pages = engine.stats().vms.iter().find(|vm| vm.id == parent.id.0).unwrap().pages;
    let child = TestVm::new(id, pages as u32);
    let memory = child.memory.clone();
    engine.attach_clone(parent.id, child.id, memory, Box::new(Unchanging)).unwrap();
    engine.check().unwrap();
    child
}

/// What the kernel's `ksm_tests -M` expects of that many equal pages and that limit.
fn expected_of_equal_pages(page_count: u64, limit: u64) -> (u64, u64) {
    match page_count % limit {
        0 | 1 => (page_count / limit, page_count / limit * (limit - 1)),
        _ => (page_count / limit + 1, page_count - (page_count / limit + 1)),
    }
}

// ksm_functional_tests, test_prctl.
#[test]
fn the_mode_of_a_vm_is_reported_as_it_was_set() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 4);
    let other = TestVm::attached(&mut engine, 1, 4);
    assert_eq!(engine.stats().vms[0].mode, "on");
    for mode in [DedupMode::Off, DedupMode::Zero, DedupMode::On, DedupMode::On, DedupMode::Off] {
        engine.set_mode(vm.id, mode).unwrap();
        let stats = engine.stats();
        assert_eq!(stats.vms[0].mode.parse(), Ok(mode));
        assert_eq!(stats.vms[0].mode, mode.to_string());
        assert_eq!(stats.vms[1].mode, "on");
    }
    engine.detach_and_discard(other.id);
    let gone = engine.set_mode(other.id, DedupMode::On).unwrap_err();
    assert!(gone.to_string().contains("not being folded"), "{gone}");
}

// ksm_functional_tests, test_prctl_fork and test_prctl_fork_exec.
#[test]
fn a_clone_inherits_the_mode_and_does_what_it_says() {
    for (mode, shared, zero) in
        [(DedupMode::On, 8, 4), (DedupMode::Zero, 0, 4), (DedupMode::Off, 0, 0)]
    {
        let mut engine = engine();
        let parent = TestVm::new(0, 16);
        parent.attach(&mut engine, "test", mode);
        (0..8).for_each(|number| parent.write(number, &page(number as u32)));
        (8..12).for_each(|number| parent.write(number, &ZEROES));
        // Not settled: the clone has to find what its parent has not.
        let child = clone_of(&mut engine, &parent, 1);
        let stats = engine.stats();
        assert_eq!(stats.vms[1].mode, mode.to_string());
        assert_eq!(stats.vms[1].domain, stats.vms[0].domain);

        settle(&mut engine);
        let stats = engine.stats();
        assert_eq!((stats.pages_shared, stats.pages_sharing), (shared, shared), "{mode}");
        for vm in &stats.vms {
            assert_eq!((vm.merging_pages, vm.zero_pages), (shared, zero), "{mode}: {vm:?}");
        }
        (0..16).for_each(|number| assert_eq!(child.read(number), parent.read(number)));
        assert_eq!((child.read(3), child.read(9)), (page(3), ZEROES));
    }
}

// Ours: a process's memory is new when it is forked, and a clone's need not be.
#[test]
fn a_clone_has_no_byte_of_what_its_memory_held_before() {
    let mut engine = engine();
    let parent = TestVm::attached(&mut engine, 0, 16);
    (0..4).for_each(|number| parent.write(number, &page(7)));
    parent.write(4, &ZEROES);
    parent.write(5, &page(5));
    settle(&mut engine);
    assert_eq!((engine.stats().pages_sharing, engine.stats().pages_zero), (3, 1));
    let child = TestVm::new(1, 16);
    (0..16).for_each(|number| child.write(number, &page(100 + number as u32)));
    let memory = child.memory.clone();
    engine.attach_clone(parent.id, child.id, memory, Box::new(Unchanging)).unwrap();
    engine.check().unwrap();
    (0..16).for_each(|number| assert_eq!(child.read(number), parent.read(number), "{number}"));
    let clone = &engine.stats().vms[1];
    assert_eq!(clone.private_bytes, Some(5 * PAGE_SIZE as u64), "what the parent has, no more");
    assert_eq!(clone.vmas, 1);

    settle(&mut engine);
    assert_eq!((engine.stats().pages_sharing, engine.stats().pages_unshared), (8, 0));
    // Each may write every page, and only it sees that.
    (0..16).for_each(|number| assert_eq!(child.swap(number, 9), parent.swap(number, 8)));
    (0..16).for_each(|number| assert_eq!((child.swap(number, 9), parent.swap(number, 8)), (9, 8)));
}

// As for the mode: a child process has its parent's `VM_MERGEABLE`, range by range.
#[test]
fn a_clone_inherits_what_its_parent_forbids_to_be_folded() {
    let mut engine = engine();
    let parent = TestVm::attached(&mut engine, 0, 8);
    let other = TestVm::attached(&mut engine, 5, 8);
    engine.set_mergeable(parent.id, LinearIndex(2), 4, false).unwrap();
    for number in 0..8 {
        parent.write(number, &page(number as u32));
        other.write(number, &page(number as u32));
    }
    let child = clone_of(&mut engine, &parent, 1);
    settle(&mut engine);
    let merging: Vec<u64> = engine.stats().vms.iter().map(|vm| vm.merging_pages).collect();
    assert_eq!(merging, [4, 4, 4], "the forbidden pages of neither");

    // Each has its own from then on.
    engine.set_mergeable(child.id, LinearIndex(2), 4, true).unwrap();
    settle(&mut engine);
    let merging: Vec<u64> = engine.stats().vms.iter().map(|vm| vm.merging_pages).collect();
    assert_eq!(merging, [4, 8, 8]);
    (0..8).for_each(|number| assert_eq!(child.read(number), parent.read(number)));
}

// A child's memory is where its parent's is.
#[test]
fn a_clone_is_on_its_parents_node() {
    let mut engine = engine_with(Knobs { merge_across_nodes: false, ..Knobs::default() });
    let parent = TestVm::attached(&mut engine, 0, 2);
    let other = TestVm::attached(&mut engine, 5, 2);
    engine.set_numa_node(parent.id, 1).unwrap();
    parent.write(0, &page(1));
    other.write(0, &page(1));
    let child = clone_of(&mut engine, &parent, 1);
    settle(&mut engine);
    let merging: Vec<u64> = engine.stats().vms.iter().map(|vm| vm.merging_pages).collect();
    assert_eq!(merging, [1, 1, 0], "parent and clone, and not the VM on the other node");
    assert_eq!(child.read(0), parent.read(0));
}

// ksm_functional_tests, test_fork_ksm_merging_page_count.
#[test]
fn the_counters_of_a_clone_start_from_the_truth() {
    let mut engine = engine();
    let parent = TestVm::attached(&mut engine, 0, 128);
    (0..64).for_each(|number| parent.write(number, &page(7)));
    (64..96).for_each(|number| parent.write(number, &ZEROES));
    settle(&mut engine);
    let before = engine.stats();
    assert_eq!((before.vms[0].merging_pages, before.vms[0].zero_pages), (64, 32));

    let child = clone_of(&mut engine, &parent, 1);
    let after = engine.stats();
    assert_eq!(after.vms[0], before.vms[0], "the parent's are as they were");
    let clone = &after.vms[1];
    assert_eq!((clone.merging_pages, clone.zero_pages, clone.extents), (0, 0, 0));
    assert_eq!((clone.events.merges, clone.events.zero_discards), (0, 0));
    assert_eq!((clone.pages, clone.vmas), (128, 1));
    assert_eq!(clone.private_bytes, Some(64 * PAGE_SIZE as u64), "a page of its own for each");
    assert_eq!((after.pages_shared, after.pages_sharing), (1, 63));

    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.vms[1].merging_pages, stats.vms[1].private_bytes), (64, Some(0)));
    assert_eq!((stats.pages_shared, stats.pages_sharing), (1, 127));
    (0..128).for_each(|number| assert_eq!(child.read(number), parent.read(number)));
}

// As above: a clone that cannot be made leaves no count behind.
#[test]
fn a_clone_that_is_refused_changes_no_counter() {
    let mut engine = engine();
    let parent = TestVm::attached(&mut engine, 0, 8);
    (0..8).for_each(|number| parent.write(number, &page(7)));
    settle(&mut engine);
    let before = engine.stats().vms;
    let small = TestVm::new(1, 4);
    let memory = small.memory.clone();
    let refused = engine.attach_clone(parent.id, small.id, memory, Box::new(Unchanging));
    assert!(matches!(refused, Err(CloneError::Shape { pages: 4, .. })), "{refused:?}");
    let memory = small.memory.clone();
    let refused = engine.attach_clone(VmId(9), small.id, memory, Box::new(Unchanging));
    assert!(matches!(refused, Err(CloneError::NoParent(VmId(9)))), "{refused:?}");
    let same = TestVm::new(0, 8);
    let memory = same.memory.clone();
    let refused = engine.attach_clone(parent.id, parent.id, memory, Box::new(Unchanging));
    assert!(matches!(refused, Err(CloneError::Attach { .. })), "{refused:?}");
    let memory = parent.memory.clone();
    let refused = engine.attach_clone(parent.id, VmId(1), memory, Box::new(Unchanging));
    let Err(CloneError::Attach { source: AttachError::Occupied { occupant, .. }, .. }) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(occupant, parent.id);
    (0..8).for_each(|number| assert_eq!(parent.read(number), page(7)));
    engine.check().unwrap();
    assert_eq!(engine.stats().vms, before);
}

// ksm_tests -U.
#[test]
fn two_pages_that_differ_in_one_byte_anywhere_are_not_shared() {
    for offset in [0, 1, 2047, 2048, 4095] {
        let mut engine = engine();
        let vm = TestVm::attached(&mut engine, 0, 2);
        vm.write(0, &page(1));
        vm.write(1, &page(1));
        vm.poke(1, offset, 0xee);
        engine.pass();
        settle(&mut engine);
        let stats = engine.stats();
        assert_eq!((stats.pages_shared, stats.pages_sharing), (0, 0), "byte {offset}");
    }
}

// ksm_tests -Z.
#[test]
fn zero_pages_are_shared_like_others_only_when_they_are_not_given_back() {
    for (page_count, limit) in [(2, 2), (64, 3), (65, 3), (66, 4), (300, 256)] {
        for use_zero_pages in [true, false] {
            let max_page_sharing = limit;
            let mut engine =
                engine_with(Knobs { use_zero_pages, max_page_sharing, ..Knobs::default() });
            let vm = TestVm::attached(&mut engine, 0, page_count);
            (0..page_count as usize).for_each(|number| vm.write(number, &ZEROES));
            settle(&mut engine);
            let stats = engine.stats();
            let shared = expected_of_equal_pages(page_count.into(), limit.into());
            let expected = if use_zero_pages { (0, 0) } else { shared };
            let what = format!("{page_count} by {limit}, {use_zero_pages}");
            assert_eq!((stats.pages_shared, stats.pages_sharing), expected, "{what}");
            let zero = if use_zero_pages { u64::from(page_count) } else { 0 };
            assert_eq!(stats.pages_zero, zero, "{what}");
            (0..page_count as usize).for_each(|number| assert_eq!(vm.read(number), ZEROES));
        }
    }
}

// ksm_tests -N, with domains for nodes.
#[test]
fn two_equal_pages_are_merged_in_one_domain_and_not_in_two() {
    for (domain, merged) in [("one", 2), ("other", 0)] {
        let mut engine = engine();
        let (a, b) = (TestVm::new(0, 1), TestVm::new(1, 1));
        a.attach(&mut engine, "one", DedupMode::On);
        b.attach(&mut engine, domain, DedupMode::On);
        a.write(0, &page(1));
        b.write(0, &page(1));
        settle(&mut engine);
        let stats = engine.stats();
        assert_eq!(stats.vms.iter().map(|vm| vm.merging_pages).sum::<u64>(), merged);
        assert_eq!((stats.pages_shared, stats.pages_sharing), (merged / 2, merged / 2));
    }
}

// Ours, as the kernel's max_page_sharing_store has it: EBUSY while anything is shared.
#[test]
fn max_page_sharing_is_busy_while_pages_are_shared_and_can_be_set_after_unmerging() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 64);
    (0..64).for_each(|number| vm.write(number, &page(7)));
    settle(&mut engine);
    let knobs = engine.knobs();
    let three = Knobs { max_page_sharing: 3, ..knobs };
    let busy = KnobError::Busy { key: "max_page_sharing", slots: 1 };
    assert_eq!(engine.set_knobs(three), Err(busy));
    assert_eq!(engine.knobs(), knobs, "none is changed");

    engine.set_knobs(Knobs { run: Run::Unmerge, ..knobs }).unwrap();
    engine.pass();
    engine.check().unwrap();
    assert_eq!((engine.stats().pages_shared, engine.stats().pages_sharing), (0, 0));
    engine.set_knobs(three).unwrap();
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing), expected_of_equal_pages(64, 3));
    (0..64).for_each(|number| assert_eq!(vm.read(number), page(7)));
}

// Ours: run=0 leaves everything as it is, as in the kernel.
#[test]
fn stopping_keeps_what_is_shared_and_shares_nothing_new() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 8);
    (0..4).for_each(|number| vm.write(number, &page(7)));
    settle(&mut engine);
    let knobs = engine.knobs();
    engine.set_knobs(Knobs { run: Run::Stop, ..knobs }).unwrap();
    (4..8).for_each(|number| vm.write(number, &page(7)));
    for _ in 0..3 {
        engine.pass();
    }
    engine.check().unwrap();
    assert_eq!((engine.stats().pages_shared, engine.stats().pages_sharing), (1, 3));
    engine.set_knobs(knobs).unwrap();
    settle(&mut engine);
    assert_eq!((engine.stats().pages_shared, engine.stats().pages_sharing), (1, 7));
}
