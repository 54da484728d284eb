//! Moving slots, joining dups and compacting stores, on real mappings, with writers racing.

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

use common::{TestVm, config, engine, page, settle, sharing_limit};
use pagefold_dedup::{
    AnonymousMemory, CompactScope, Compaction, Engine, EngineConfig, Knobs, LinearIndex, PageState,
    Run, Slot, VmId,
};

/// The slot that a page shares.
fn slot(engine: &Engine, vm: &TestVm, number: usize) -> Slot {
    match engine.find(vm.id, number as u64 * 4096).unwrap().state {
        PageState::Shared(slot) => slot,
        state => panic!("page {number} of VM {} is {state:?}", vm.id),
    }
}

/// The pages that share a slot.
fn sharers(engine: &Engine, slot: Slot) -> Vec<(u32, LinearIndex)> {
    let mut found = Vec::new();
    let walked = engine.walk("test", slot, |mapping| {
        found.push((mapping.vm.0, mapping.linear));
        ControlFlow::Continue(())
    });
    walked.map(|_| found).unwrap_or_default()
}

#[test]
fn all_sharers_of_a_moved_slot_share_the_new_one_and_read_the_same_bytes() {
    let mut engine = engine();
    let vms: Vec<TestVm> = (0..4).map(|id| TestVm::attached(&mut engine, id, 32)).collect();
    for vm in &vms {
        (0..32).for_each(|number| vm.write(number, &page(number as u32 / 2)));
    }
    settle(&mut engine);
    let before = engine.stats();
    let old = slot(&engine, &vms[0], 7);
    assert_eq!(sharers(&engine, old).len(), 8);

    let report = engine.move_slot("test", old).unwrap();
    assert_eq!((report.moved_pages, report.left_pages), (8, 0));
    assert_ne!(report.to, old);
    engine.check().unwrap();
    assert!(sharers(&engine, old).is_empty());
    for vm in &vms {
        for number in [6, 7] {
            assert_eq!(slot(&engine, vm, number), report.to);
        }
        (0..32).for_each(|number| assert_eq!(vm.read(number), page(number as u32 / 2)));
    }
    let after = engine.stats();
    assert_eq!(after.events.moves, 8);
    assert_eq!(after.events.merges, before.events.merges);
    assert_eq!(
        (after.pages_shared, after.pages_sharing),
        (before.pages_shared, before.pages_sharing)
    );
    assert_eq!(
        after.domains[0].store_bytes, before.domains[0].store_bytes,
        "the old page is freed"
    );
    assert_eq!((after.stable_node_chains, after.stable_node_dups), (0, 0));
}

#[test]
fn a_page_written_before_the_move_keeps_its_bytes_and_leaves() {
    let mut engine = engine();
    let (a, b) = (TestVm::attached(&mut engine, 0, 4), TestVm::attached(&mut engine, 1, 4));
    for number in 0..4 {
        a.write(number, &page(9));
        b.write(number, &page(9));
    }
    settle(&mut engine);
    let old = slot(&engine, &a, 0);
    // The engine does not know of this write yet.
    a.poke(2, 100, 1);
    let report = engine.move_slot("test", old).unwrap();
    assert_eq!((report.moved_pages, report.left_pages), (7, 1));
    let mut written = page(9);
    written[100] = 1;
    assert_eq!(a.read(2), written);
    settle(&mut engine);
    assert!(sharers(&engine, old).is_empty());
    assert_eq!(sharers(&engine, report.to).len(), 7);
    assert_eq!(a.read(2), written);
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing), (1, 6));
}

#[test]
fn what_is_not_there_cannot_be_moved_and_says_so() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 4);
    assert!(engine.move_slot("elsewhere", Slot(0)).is_err());
    assert!(engine.move_slot("test", Slot(0)).is_err());
    assert!(engine.move_slot("test", Slot(u32::MAX)).is_err());
    (0..4).for_each(|number| vm.write(number, &page(1)));
    settle(&mut engine);
    let slot = slot(&engine, &vm, 0);
    assert!(engine.move_slot("test", slot.offset(1)).is_err());
    engine.check().unwrap();
}

#[test]
fn moving_a_slot_does_nothing_about_pages_that_wait_to_be_merged() {
    const PAGES: usize = 2000;
    for run in [Run::Stop, Run::Unmerge, Run::Fold] {
        let mut engine = engine();
        let page_count = PAGES as u32 + 1;
        let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, page_count));
        for vm in &vms {
            vm.write(PAGES, &page(1_000_000));
        }
        settle(&mut engine);
        for vm in &vms {
            (0..PAGES).for_each(|number| vm.write(number, &page(number as u32)));
        }
        engine.pass();
        engine.set_knobs(Knobs { pages_to_scan: 250, ..engine.knobs() }).unwrap();
        let before = engine.stats().events;
        while engine.stats().events.pages_scanned < before.pages_scanned + 2 * PAGES as u64 {
            engine.step();
        }
        assert_eq!(engine.stats().events.merges, before.merges, "all have twins, none is merged");
        engine.set_knobs(Knobs { run, ..engine.knobs() }).unwrap();
        let old = slot(&engine, &vms[0], PAGES);
        let report = engine.move_slot("test", old).unwrap();
        assert_eq!((report.moved_pages, report.left_pages), (2, 0));
        assert_eq!(engine.compact(CompactScope::All).moved_pages, 2);
        let after = engine.stats().events;
        assert_eq!((after.merges, after.moves), (before.merges, before.moves + 4), "{run:?}");
        engine.check().unwrap();
        engine.set_knobs(Knobs { run: Run::Fold, ..engine.knobs() }).unwrap();
        settle(&mut engine);
        assert_eq!(engine.stats().pages_sharing, PAGES as u64 + 1);
    }
}

/// VMs of one page each, which take a mapping each, until so many mappings are in use.
fn spend_mappings(engine: &mut Engine, limit: u64) -> Vec<VmId> {
    let mut padding = Vec::new();
    while engine.stats().vmas_used < limit {
        padding.push(TestVm::attached(engine, 1000 + padding.len() as u32, 1).id);
    }
    padding
}

fn with_mappings(max_mappings: u64) -> Engine {
    let mut config = EngineConfig { max_mappings: Some(max_mappings), ..config() };
    // Dups that are small are not joined meanwhile, however slow the machine is.
    config.knobs = Knobs { stable_node_chains_prune_millisecs: 3_600_000, ..config.knobs };
    Engine::new(config).unwrap()
}

#[test]
fn moves_that_the_budget_refuses_are_given_up_and_take_no_memory() {
    let mut engine = with_mappings(24);
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, 64));
    for vm in &vms {
        (0..64).for_each(|number| vm.write(number, &page(number as u32)));
    }
    settle(&mut engine);
    // What is left of each mapping would be parted by moving any one page.
    for vm in &vms {
        (1..64).step_by(2).for_each(|number| vm.poke(number, 9, vm.id.0 as u8));
    }
    let padding = spend_mappings(&mut engine, 24);
    settle(&mut engine);
    let before = engine.stats();
    assert_eq!(before.pages_sharing, 32);
    for number in (2..64).step_by(2) {
        let at = slot(&engine, &vms[0], number);
        let report = engine.move_slot("test", at).unwrap();
        assert_eq!((report.to, report.moved_pages, report.left_pages), (at, 0, 2));
    }
    let report = engine.compact(CompactScope::All);
    assert_eq!((report.moved_slots, report.moved_pages), (0, 0));
    engine.check().unwrap();
    let after = engine.stats();
    assert_eq!(after.domains[0].store_bytes, before.domains[0].store_bytes);
    assert_eq!((after.stable_node_dups, after.events.moves), (0, 0));
    // The slots take pages again, and can be moved.
    for vm in padding {
        engine.detach_and_discard(vm);
    }
    vms[0].write(63, &page(2));
    settle(&mut engine);
    assert_eq!(slot(&engine, &vms[0], 63), slot(&engine, &vms[1], 2));
    assert_eq!(engine.stats().stable_node_dups, 0);
    let report = engine.move_slot("test", slot(&engine, &vms[0], 30)).unwrap();
    assert_eq!((report.moved_pages, report.left_pages), (2, 0));
    (0..64).step_by(2).for_each(|number| assert_eq!(vms[1].read(number), page(number as u32)));
}

#[test]
fn a_move_that_only_some_pages_can_make_leaves_two_slots_that_both_take_pages() {
    let mut engine = with_mappings(24);
    let vms = [0, 1, 2].map(|id| TestVm::attached(&mut engine, id, 32));
    for vm in &vms[..2] {
        (0..8).for_each(|number| vm.write(number, &page(number as u32)));
    }
    // It has a mapping to itself already.
    vms[2].write(20, &page(3));
    settle(&mut engine);
    let old = slot(&engine, &vms[0], 3);
    let padding = spend_mappings(&mut engine, 24);
    let report = engine.move_slot("test", old).unwrap();
    assert_eq!((report.moved_pages, report.left_pages), (1, 2));
    // The first pass asks again; when it is over nobody waits for the others any longer.
    engine.pass();
    engine.check().unwrap();
    for vm in padding {
        engine.detach_and_discard(vm);
    }
    vms[2].write(25, &page(3));
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.stable_node_chains, stats.stable_node_dups), (1, 2));
    assert_eq!((stats.events.moves, stats.pages_sharing), (1, 8 + 1));
    assert!([old, report.to].contains(&slot(&engine, &vms[2], 25)));
    assert_eq!(vms[2].read(20), page(3));
}

// Joined once the period is over; `chains_are_left_alone_until_the_period_is_over` has the rest.
#[test]
fn dups_that_have_become_small_are_joined_within_the_period() {
    let mut config = sharing_limit(10);
    config.knobs = Knobs { stable_node_chains_prune_millisecs: 0, ..config.knobs };
    let mut engine = Engine::new(config).unwrap();
    let vm = TestVm::attached(&mut engine, 0, 40);
    (0..30).for_each(|number| vm.write(number, &page(5)));
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.stable_node_chains, stats.stable_node_dups), (1, 3));
    // Three sharers are left to each dup.
    let mut left = std::collections::BTreeMap::new();
    for number in 0..30 {
        let kept = left.entry(slot(&engine, &vm, number)).or_insert(0);
        if *kept < 3 {
            *kept += 1;
        } else {
            vm.write(number, &page(100 + number as u32));
        }
    }
    assert_eq!(left.len(), 3);
    settle(&mut engine);
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!(
        (stats.stable_node_chains, stats.stable_node_dups),
        (0, 0),
        "a chain of one collapses"
    );
    assert_eq!((stats.pages_shared, stats.pages_sharing), (1, 8));
}

#[test]
fn a_compaction_that_waited_for_another_reports_its_own_work() {
    let mut engine = engine();
    scattered(&mut engine, 600);
    let mut first = engine.begin_compaction(CompactScope::Gainful);
    let mut second = engine.begin_compaction(CompactScope::Gainful);
    let mut finish = |compaction: &mut Compaction| {
        std::iter::from_fn(|| Some(engine.compact_step(compaction))).find_map(|report| report)
    };
    let (first, second) = (finish(&mut first).unwrap(), finish(&mut second).unwrap());
    assert!(first.moved_pages > 0 && first.extents_after < first.extents_before, "{first:?}");
    assert_eq!((second.moved_pages, second.extents_before), (0, first.extents_after));
}

#[test]
fn a_long_chain_of_small_dups_is_halved_each_time() {
    let mut config = sharing_limit(4);
    config.knobs = Knobs { stable_node_chains_prune_millisecs: 0, ..config.knobs };
    let mut engine = Engine::new(config).unwrap();
    let vm = TestVm::attached(&mut engine, 0, 400);
    (0..400).for_each(|number| vm.write(number, &page(5)));
    settle(&mut engine);
    assert_eq!(engine.stats().stable_node_dups, 100);
    let mut kept = std::collections::BTreeSet::new();
    for number in 0..400 {
        if !kept.insert(slot(&engine, &vm, number)) {
            vm.write(number, &page(1000 + number as u32));
        }
    }
    let mut dups = Vec::new();
    for _ in 0..4 {
        engine.pass();
        engine.check().unwrap();
        dups.push(engine.stats().stable_node_dups);
    }
    // The first pass notices what was written.
    assert_eq!(dups, [100, 50, 25, 25]);
    assert_eq!(engine.stats().pages_sharing, 75);
}

#[test]
fn chains_are_left_alone_until_the_period_is_over() {
    let mut config = sharing_limit(4);
    config.knobs = Knobs { stable_node_chains_prune_millisecs: 3_600_000, ..config.knobs };
    let mut engine = Engine::new(config).unwrap();
    let vm = TestVm::attached(&mut engine, 0, 8);
    (0..8).for_each(|number| vm.write(number, &page(5)));
    settle(&mut engine);
    let first = slot(&engine, &vm, 0);
    let (mut one, mut other) = (0, 0);
    for number in 0..8 {
        let kept = if slot(&engine, &vm, number) == first { &mut one } else { &mut other };
        *kept += 1;
        if *kept > 2 {
            vm.write(number, &page(100 + number as u32));
        }
    }
    settle(&mut engine);
    assert_eq!(engine.stats().stable_node_dups, 2);
    let knobs = Knobs { stable_node_chains_prune_millisecs: 0, ..engine.knobs() };
    engine.set_knobs(knobs).unwrap();
    settle(&mut engine);
    assert_eq!(engine.stats().stable_node_dups, 0);
    assert_eq!(engine.stats().pages_sharing, 3);
}

/// Two VMs with the same pages, which are last written in an order that scatters their slots.
fn scattered(engine: &mut Engine, page_count: usize) -> (TestVm, TestVm) {
    let one = TestVm::attached(engine, 0, page_count as u32);
    let other = TestVm::attached(engine, 1, page_count as u32);
    let mut written = vec![false; page_count];
    for step in [7, 5, 3, 1] {
        for number in (0..page_count).step_by(step) {
            if std::mem::replace(&mut written[number], true) {
                continue;
            }
            one.write(number, &page(number as u32));
            other.write(number, &page(number as u32));
        }
        settle(engine);
    }
    (one, other)
}

#[test]
fn compaction_joins_mappings_and_says_how_many() {
    let mut engine = engine();
    let (one, other) = scattered(&mut engine, 400);
    let before = engine.stats();
    assert!(before.vms[0].extents > 50, "{}", before.vms[0].extents);
    let report = engine.compact(CompactScope::Gainful);
    engine.check().unwrap();
    let after = engine.stats();
    assert_eq!(report.extents_before, before.vms[0].extents + before.vms[1].extents);
    assert_eq!(report.extents_after, after.vms[0].extents + after.vms[1].extents);
    assert!(report.extents_after <= 4, "{report:?}");
    assert!(report.vmas_after < report.vmas_before);
    assert_eq!(report.vmas_after, after.vmas_used);
    assert_eq!(report.store_bytes_after, report.store_bytes_before);
    assert_eq!(after.pages_sharing, before.pages_sharing);
    for number in 0..400 {
        assert_eq!(one.read(number), page(number as u32));
        assert_eq!(other.read(number), page(number as u32));
    }
    let again = engine.compact(CompactScope::Gainful);
    assert_eq!(again.moved_slots, 0, "there is nothing left to win");
}

#[test]
fn nothing_is_moved_where_pages_that_follow_each_other_are_apart_at_the_host() {
    let mut engine = engine();
    let (one, other) = scattered(&mut engine, 48);
    // The kernel gives new memory below what it gave before, so that no page's address is next.
    for vm in [&one, &other] {
        for number in 0..48 {
            let memory = Arc::new(AnonymousMemory::new(1).unwrap());
            engine.relocate(vm.id, LinearIndex(number), 1, memory).unwrap();
        }
    }
    let report = engine.compact(CompactScope::Gainful);
    assert_eq!((report.moved_slots, report.vmas_after), (0, report.vmas_before), "{report:?}");
    engine.check().unwrap();
}

#[test]
fn a_part_of_a_compaction_maps_512_pages_at_most_anew() {
    const PAGES: usize = 10_240;
    const SLOTS: usize = 80;
    let mut engine = engine();
    let attach = |engine: &mut Engine, id| {
        let vm = TestVm::attached(engine, id, PAGES as u32);
        (0..PAGES).for_each(|number| vm.write(number, &page((number % SLOTS) as u32)));
        vm
    };
    let mut vms = vec![attach(&mut engine, 0), attach(&mut engine, 1)];
    settle(&mut engine);
    assert_eq!(engine.stats().pages_shared, SLOTS as u64, "each has 256 sharers");
    let mut compaction = engine.begin_compaction(CompactScope::All);
    let (mut parts, mut moves) = (Vec::new(), 0);
    let report = loop {
        let report = engine.compact_step(&mut compaction);
        engine.check().unwrap();
        let now = engine.stats().events.moves;
        parts.push(now - moves);
        moves = now;
        // VMs come and go in the middle of a group, and passes are made.
        match parts.len() {
            1 => {
                engine.detach_and_discard(vms.remove(1).id);
            }
            2 => {
                vms.push(attach(&mut engine, 2));
                engine.pass();
                moves = engine.stats().events.moves;
            }
            _ => {}
        }
        if let Some(report) = report {
            break report;
        }
    };
    assert!(parts.iter().all(|&moved| moved <= 512), "{parts:?}");
    assert!(parts.iter().filter(|&&moved| moved > 0).count() >= 2, "{parts:?}");
    assert_eq!(report.moved_slots, SLOTS as u64);
    assert_eq!(report.moved_pages, PAGES as u64, "what is left of them");
    settle(&mut engine);
    assert_eq!(engine.stats().pages_shared, SLOTS as u64);
    for vm in vms {
        (0..PAGES).for_each(|number| assert_eq!(vm.read(number), page((number % SLOTS) as u32)));
    }
}

#[test]
fn a_compaction_of_all_slots_never_leaves_more_mappings() {
    const PAGES: usize = 600;
    let mut engine = engine();
    // The first has gaps, and what is side by side for it is a part of one run of the others.
    let vms = [0, 1, 2].map(|id| TestVm::attached(&mut engine, id, PAGES as u32));
    let content = |id: usize, at: usize| {
        let own = id == 0 && at % 3 == 2;
        if own { page((1_000_000 + at) as u32) } else { page(at as u32) }
    };
    // It comes last, when the slots lie in the others' order.
    for (id, vm) in vms.iter().enumerate().rev() {
        (0..PAGES).for_each(|at| vm.write(at, &content(id, at)));
        settle(&mut engine);
    }
    for _ in 0..3 {
        let report = engine.compact(CompactScope::All);
        assert!(report.vmas_after <= report.vmas_before, "{report:?}");
        assert!(report.extents_after <= report.extents_before, "{report:?}");
        engine.check().unwrap();
    }
    for (id, vm) in vms.iter().enumerate() {
        (0..PAGES).for_each(|at| assert_eq!(vm.read(at), content(id, at)));
    }
}

#[test]
fn pages_for_which_there_is_nothing_to_move_take_few_parts() {
    const PAGES: usize = 1000;
    let mut engine = engine();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, 2 * PAGES as u32));
    for vm in &vms {
        (0..PAGES).for_each(|number| vm.write(2 * number, &page(number as u32)));
    }
    settle(&mut engine);
    let mut compaction = engine.begin_compaction(CompactScope::Gainful);
    let mut parts = 1;
    while engine.compact_step(&mut compaction).is_none() {
        parts += 1;
    }
    assert!(parts <= 8, "{parts} parts");
}

// As in `racing.rs`, of moves.
#[test]
fn no_write_is_lost_while_all_slots_are_moved_again_and_again() {
    const PAGES: usize = 256;
    let mut engine = engine();
    let vms: Vec<TestVm> =
        (0..3).map(|id| TestVm::attached(&mut engine, id, PAGES as u32)).collect();
    for vm in &vms {
        (0..PAGES).for_each(|number| vm.write(number, &page(number as u32)));
    }
    settle(&mut engine);
    let stop = AtomicBool::new(false);
    let words = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // What each page's first word must be: written and read back in one step.
            let mut words = vec![None; PAGES];
            let mut random = 1_u64;
            while !stop.load(Ordering::Relaxed) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let number = (random >> 33) as usize % PAGES;
                // Equal in all VMs shortly after it was not, and now and then as it was at first.
                let first = u64::from_le_bytes(page(number as u32)[..8].try_into().unwrap());
                let word = if random >> 62 == 0 { first } else { random >> 60 };
                for vm in &vms {
                    let found = vm.swap(number, word);
                    assert_eq!(found, words[number].unwrap_or(first), "page {number}");
                }
                words[number] = Some(word);
                thread::yield_now();
            }
            words
        });
        let mut moved = 0;
        while moved < 5_000 && !writer.is_finished() {
            engine.pass();
            moved += engine.compact(CompactScope::All).moved_pages;
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    settle(&mut engine);
    for (number, word) in words.into_iter().enumerate() {
        let mut expected = page(number as u32);
        if let Some(word) = word {
            expected[..8].copy_from_slice(&word.to_le_bytes());
        }
        for vm in &vms {
            assert_eq!(vm.read(number), expected, "page {number}");
        }
    }
    assert_eq!(engine.stats().events.errors, 0);
}
