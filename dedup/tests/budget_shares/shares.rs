//! Who gets the mappings that there are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pagefold_dedup::{DedupMode, Engine, EngineConfig, Knobs, PAGE_SIZE};

use crate::common::{Random, TestVm, check_counters, config, page, settle};
use crate::memory::{
    attach_all, check_bytes, doubled, doubled_page, pairs, sharing_in, sharing_runs, with_contents,
    with_mappings,
};

fn word(page: &[u8; PAGE_SIZE]) -> u64 {
    u64::from_ne_bytes(*page.first_chunk().unwrap())
}

#[test]
fn a_vm_that_was_alone_gives_newcomers_their_shares_back() {
    const LIMIT: u64 = 2000;
    let mut engine = with_mappings(LIMIT);
    let first = doubled(&mut engine, 0, 4000);
    settle(&mut engine);
    let alone = engine.stats();
    assert!(alone.vmas_used > LIMIT * 9 / 10, "{alone:?}");
    let stop = AtomicBool::new(false);
    let newcomers = thread::scope(|scope| {
        // Pages that no other has are written all the time, so that what is between the others is, too.
        scope.spawn(|| {
            let mut expected: Vec<u64> =
                (0..4000).map(|number| word(&doubled_page(&first, number))).collect();
            let mut random = 1_u64;
            while !stop.load(Ordering::Relaxed) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let number = (random >> 33) as usize % 4000;
                let next = if number % 40 == 1 { random } else { expected[number] };
                assert_eq!(first.swap(number, next), expected[number], "page {number}");
                expected[number] = next;
                let read = (random >> 13) as usize % 4000;
                assert_eq!(word(&first.read(read)), expected[read], "page {read}");
            }
        });
        // All but the last want more than they can have.
        let newcomers: Vec<TestVm> =
            (1..9).map(|id| doubled(&mut engine, id, if id == 8 { 40 } else { 1200 })).collect();
        settle(&mut engine);
        stop.store(true, Ordering::Relaxed);
        newcomers
    });
    settle(&mut engine);
    check_counters(&engine);
    let stats = engine.stats();
    let share = LIMIT * 60 / 64 / 9;
    for vm in &stats.vms[1..8] {
        assert!(vm.vmas >= share * 7 / 8, "share {share}: {vm:?}");
        assert!(vm.merging_pages >= share * 7 / 8 / 2 - 2, "share {share}: {vm:?}");
    }
    assert_eq!((stats.vms[8].merging_pages, stats.vms[8].deferred_pages), (20, 0), "{stats:?}");
    assert!(stats.vms[0].vmas >= share * 7 / 8, "{stats:?}");
    assert!(stats.pages_sharing >= alone.pages_sharing * 9 / 10, "{alone:?}, then {stats:?}");
    for vm in &newcomers {
        let page_count = vm.memory.len_bytes() / PAGE_SIZE;
        (0..page_count).for_each(|n| assert_eq!(vm.read(n), doubled_page(vm, n as u32)));
    }
    // It stays so: nothing goes back and forth.
    (0..5).for_each(|_| drop(engine.pass()));
    let later = engine.stats();
    assert_eq!(later.events.unmerges, stats.events.unmerges);
    assert_eq!(later.events.pages_scanned, stats.events.pages_scanned);
    // When they have gone, it has all again.
    for vm in &newcomers {
        engine.detach(vm.id).unwrap();
    }
    settle(&mut engine);
    assert!(engine.stats().vms[0].vmas > LIMIT / 2, "{:?}", engine.stats());
    check_counters(&engine);
}

/// A VM that takes all mappings, whose first `page_count` pages have their twins, every second of them, in a
/// later VM only; and the share of each of the two.
fn hoarder(engine: &mut Engine, limit: u64, page_count: u32) -> (TestVm, u64) {
    let own = 2 * limit as u32;
    let vm = TestVm::attached(engine, 0, own + page_count);
    for number in 0..own {
        let twin = if number.is_multiple_of(2) { number % (own / 2) } else { number };
        vm.write((page_count + number) as usize, &page(twin));
    }
    for number in 0..page_count {
        vm.write(number as usize, &page(partner_content(&vm, number)));
    }
    settle(engine);
    let alone = engine.stats();
    assert!(alone.vmas_used > limit * 8 / 10, "{alone:?}");
    (vm, limit * 60 / 64 / 2)
}

fn partner_content(vm: &TestVm, number: u32) -> u32 {
    let whose = if number.is_multiple_of(2) { 0 } else { vm.id.0 };
    60_000_000 + whose * 1_000_000 + number
}

// Its partners were within their shares, so it gave nothing back, and who came last had next to nothing: another
// partner, or VMs that have nothing to do with it.
#[test]
fn a_vm_whose_pages_have_their_twins_in_many_others_leaves_each_half_its_share() {
    const LIMIT: u64 = 4000;
    const PAGES: u32 = 800;
    for partner_count in [3, 5] {
        let mut engine = with_mappings(LIMIT);
        let hub = TestVm::attached(&mut engine, 0, 2 * PAGES * partner_count);
        let content = |vm: &TestVm, id: u32, number: u32| {
            let whose = if number.is_multiple_of(2) { 500 + id } else { 600 + 20 * vm.id.0 + id };
            page(whose * 1_000_000 + number)
        };
        let mut vms = Vec::new();
        for id in 1..=partner_count {
            let vm = TestVm::attached(&mut engine, id, 2 * PAGES);
            for number in 0..2 * PAGES {
                vm.write(number as usize, &content(&vm, id, number));
                let at = (id - 1) * 2 * PAGES + number;
                hub.write(at as usize, &content(&hub, id, number));
            }
            vms.push(vm);
        }
        settle(&mut engine);
        let alone = engine.stats();
        assert!(alone.pages_sharing >= LIMIT / 4 * 9 / 10, "{alone:?}");
        let newcomers = pairs(&mut engine, 50, PAGES);
        settle(&mut engine);
        check_counters(&engine);
        let stats = engine.stats();
        let share = LIMIT * 60 / 64 / (u64::from(partner_count) + 3);
        for vm in &stats.vms {
            assert!(vm.vmas + 4 >= share / 2, "{partner_count}, share {share}: {vm:?}");
        }
        assert!(stats.pages_sharing >= alone.pages_sharing * 9 / 10, "{alone:?}, then {stats:?}");
        (0..5).for_each(|_| drop(engine.pass()));
        assert_eq!(engine.stats().events, stats.events, "nothing goes back and forth");
        check_bytes(&newcomers);
    }
}

// It keeps what others are entitled to, and that was little for all that the VM held for it.
#[test]
fn a_vm_whose_twins_lie_side_by_side_in_another_leaves_newcomers_half_their_share() {
    const LIMIT: u64 = 4000;
    const COMMON: u32 = 3000;
    for is_first in [true, false] {
        let mut engine = with_mappings(LIMIT);
        let [hub, partner] = if is_first { [1, 2] } else { [2, 1] };
        let hub = TestVm::attached(&mut engine, hub, 2 * COMMON);
        let partner = TestVm::attached(&mut engine, partner, COMMON);
        for number in 0..COMMON {
            hub.write(2 * number as usize, &page(7_000_000 + number));
            hub.write(2 * number as usize + 1, &page(8_000_000 + number));
            partner.write(number as usize, &page(7_000_000 + number));
        }
        settle(&mut engine);
        let alone = engine.stats();
        assert!(alone.vmas_used >= LIMIT * 57 / 64, "{alone:?}");
        (0..5).for_each(|_| drop(engine.pass()));
        assert_eq!(engine.stats().events, alone.events, "nothing goes back and forth");
        let newcomers = pairs(&mut engine, 10, 2000);
        settle(&mut engine);
        check_counters(&engine);
        let (stats, share) = (engine.stats(), LIMIT * 60 / 64 / 4);
        for vm in stats.vms.iter().filter(|vm| vm.id != partner.id.0) {
            assert!(vm.vmas + 4 >= share / 2, "share {share}: {vm:?}");
        }
        (0..5).for_each(|_| drop(engine.pass()));
        assert_eq!(engine.stats().events, stats.events, "nothing goes back and forth");
        check_bytes(&newcomers);
    }
}

// One of them took what another had given back, for whom it would go on: for hundreds of passes.
#[test]
fn vms_that_all_want_more_than_their_share_of_each_other_are_done_soon() {
    const LIMIT: u64 = 600;
    const VMS: u32 = 11;
    let mut random = Random::new(5);
    let mut groups = Vec::new();
    for vm in (0..VMS).flat_map(|vm| [vm; 3]) {
        let other = (vm + random.within(1..VMS)) % VMS;
        groups.push((vec![vm as usize, other as usize], random.within(1..300)));
    }
    let vms = sharing_in(&groups);
    let mut engine = with_mappings(LIMIT);
    attach_all(&mut engine, &vms);
    let report = engine.settle(Duration::from_mins(1), Duration::ZERO);
    assert!(report.settled && report.passes < 50, "{report:?}");
    check_counters(&engine);
    let stats = engine.stats();
    assert!(stats.pages_sharing >= LIMIT / 4 * 9 / 10, "{stats:?}");
    (0..5).for_each(|_| drop(engine.pass()));
    assert_eq!(engine.stats().events, stats.events, "nothing goes back and forth");
}

// Everything was given back in the order of addresses: the partner lost half of its share, and all others nothing.
#[test]
fn a_vm_keeps_its_share_while_there_is_something_else_to_be_given_back() {
    const LIMIT: u64 = 750;
    let quiet = (4..16).map(|vm| (vec![vm], 2));
    let groups = [(vec![0, 1], 19), (vec![1], 400), (vec![2, 3], 400)];
    let vms = sharing_in(&groups.into_iter().chain(quiet).collect::<Vec<_>>());
    let [partner, hub, newcomers, quiet] = [&vms[..1], &vms[1..2], &vms[2..4], &vms[4..]];
    let mut engine = with_mappings(LIMIT);
    for earlier in [partner, quiet, hub] {
        attach_all(&mut engine, earlier);
    }
    settle(&mut engine);
    assert_eq!(engine.stats().vms[0].merging_pages, 19, "{:?}", engine.stats());
    attach_all(&mut engine, newcomers);
    settle(&mut engine);
    check_counters(&engine);
    let (stats, share) = (engine.stats(), LIMIT * 60 / 64 / 16);
    assert_eq!(stats.vms[0].merging_pages, 19, "share {share}: {stats:?}");
    assert!(stats.vms[2..4].iter().all(|vm| vm.vmas >= share * 7 / 8), "{share}: {stats:?}");
}

// Each of them left it half of its share, as far as it knew.
#[test]
fn several_vms_that_give_back_what_they_share_with_one_leave_it_half_its_share() {
    const LIMIT: u32 = 600;
    const HUBS: usize = 5;
    let shared = (1..=HUBS).map(|hub| (vec![0, hub], 5));
    let own = (1..=HUBS).map(|hub| (vec![hub], LIMIT));
    let newcomers = (vec![HUBS + 1, HUBS + 2], LIMIT);
    let vms = sharing_in(&shared.chain(own).chain([newcomers]).collect::<Vec<_>>());
    let mut engine = with_mappings(LIMIT.into());
    attach_all(&mut engine, &vms[..=HUBS]);
    settle(&mut engine);
    attach_all(&mut engine, &vms[HUBS + 1..]);
    settle(&mut engine);
    check_counters(&engine);
    let (stats, share) = (engine.stats(), u64::from(LIMIT) * 60 / 64 / vms.len() as u64);
    for vm in &stats.vms {
        assert!(vm.vmas + 4 >= share / 2, "share {share}: {vm:?}");
    }
}

// A page waited that was awaited, as the page beside it was to fill a slot and could not be paid for. Who had set its
// mappings aside was left alone, was made private, and filled another slot for it.
#[test]
fn pages_that_are_awaited_do_not_wait_with_those_beside_them_that_are_to_fill_slots() {
    for limit in 1..64 {
        let knobs = Knobs { max_page_sharing: 2, ..Knobs::default() };
        let config = EngineConfig { max_mappings: Some(limit), knobs, ..config() };
        let mut engine = Engine::new(config).unwrap();
        let vms = with_contents(&[vec![1; 40], vec![1; 15]]);
        attach_all(&mut engine, &vms);
        let report = engine.settle(Duration::from_secs(10), Duration::ZERO);
        assert!(report.settled && report.passes < 50, "limit {limit}: {report:?}");
    }
}

// Two mappings went round in each pass: what the last VM was short of had its twins in VMs that had their shares, and
// were beyond them then, so that one that kept pages for their sake gave as many of these back.
#[test]
fn a_few_mappings_do_not_go_round_among_vms_that_have_their_shares() {
    const LIMIT: u64 = 10_000;
    const PAIRS: u32 = 3333;
    // Every second page of a VM has its twin in the next VM, or in the one before.
    let contents: [Vec<u32>; 4] = [0, 1, 2, 3].map(|id| {
        let common = [(id + 3) % 4, id].map(|first| first * PAIRS..(first + 1) * PAIRS);
        let pages = common.into_iter().flatten();
        pages.flat_map(|number| [number, (1 + id) * 1_000_000 + number]).collect()
    });
    let mut engine = with_mappings(LIMIT);
    let vms = with_contents(&contents);
    attach_all(&mut engine, &vms[..3]);
    settle(&mut engine);
    attach_all(&mut engine, &vms[3..]);
    let report = engine.settle(Duration::from_mins(1), Duration::ZERO);
    assert!(report.settled && report.passes < 50, "{report:?}");
    check_counters(&engine);
    let stats = engine.stats();
    let share = LIMIT * 60 / 64 / 4;
    assert!(stats.vms.iter().all(|vm| vm.vmas >= share / 2), "share {share}: {stats:?}");
}

// What a VM gave back, another of its pages took, whose content had more pages than may share a slot: for ever.
#[test]
fn what_is_given_back_is_not_taken_by_a_page_that_found_no_room_beside_it() {
    let knobs = Knobs { max_page_sharing: 2, ..Knobs::default() };
    let config = EngineConfig { max_mappings: Some(40), knobs, ..config() };
    let mut engine = Engine::new(config).unwrap();
    // Contents from 100 on are of one page.
    let contents: [&[u32]; 4] = [
        &[101, 1, 2, 3, 4, 102, 1, 1, 103, 2, 104, 3, 105, 4, 106],
        &[5, 6, 107, 7, 108, 8, 6, 109, 7, 110, 8, 111],
        &[9, 10, 11, 12, 13, 14, 15],
        &[5, 112, 10, 113, 11, 114, 12, 115, 13, 116, 14, 117, 15],
    ];
    let vms = with_contents(&contents.map(<[u32]>::to_vec));
    attach_all(&mut engine, &vms);
    settle(&mut engine);
    check_counters(&engine);
    let before = engine.stats().events.unmerges;
    (0..5).for_each(|_| drop(engine.pass()));
    assert_eq!(engine.stats().events.unmerges, before);
}

// Pages that were to join slots which stayed empty took mappings that others were deferred for want of.
#[test]
fn few_mappings_for_few_contents_are_given_out_once_and_not_tried_for_ever() {
    for (limit, content_count) in [(60, 20), (120, 40), (200, 20), (200, 40), (400, 60)] {
        let mut engine = with_mappings(limit);
        let mut random = limit;
        let vms: Vec<TestVm> = (0..4).map(|id| TestVm::attached(&mut engine, id, 500)).collect();
        for (vm, number) in vms.iter().flat_map(|vm| (0..500).map(move |number| (vm, number))) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            vm.write(number, &page((random >> 33) as u32 % content_count));
        }
        settle(&mut engine);
        check_counters(&engine);
        let stats = engine.stats();
        assert!(stats.vmas_used > limit * 7 / 8, "{stats:?}");
        (0..70).for_each(|_| drop(engine.pass()));
        let before = engine.stats().events;
        (0..5).for_each(|_| drop(engine.pass()));
        assert_eq!(engine.stats().events, before, "limit {limit}, {content_count} contents");
    }
}

// It was deferred as a whole, because with what its partner needs it was more than a share, although nearly half of all
// mappings were free.
#[test]
fn a_run_that_needs_more_than_a_share_is_merged_as_far_as_that_goes() {
    const LIMIT: u64 = 600;
    let own = ([(0, false), (0, false)], 40);
    let runs = [([(1, true), (0, false)], 100), ([(2, true), (0, false)], 100)];
    let vms = sharing_runs(3, &[own, runs[0], runs[1]]);
    let mut engine = with_mappings(LIMIT);
    attach_all(&mut engine, &vms);
    settle(&mut engine);
    check_counters(&engine);
    let stats = engine.stats();
    assert_eq!([1, 2].map(|vm| stats.vms[vm].deferred_pages), [0, 0], "{stats:?}");
    assert!(stats.vmas_used > LIMIT * 7 / 8, "{stats:?}");
}

// As many lacked half of their shares, and as much was in use, as when a search had come to nothing, but shares were larger
// then: no other was made for the newcomer.
#[test]
fn mappings_are_searched_for_again_when_shares_have_become_smaller() {
    const LIMIT: u64 = 400;
    let runs = [([(2, true), (0, false)], 100), ([(0, false), (2, false)], 150)];
    let newcomer = ([(1, false), (2, false)], 20);
    let vms = sharing_runs(3, &[runs[0], runs[1], newcomer]);
    let mut engine = with_mappings(LIMIT);
    for vms in [&vms[..1], &vms[2..]] {
        attach_all(&mut engine, vms);
    }
    settle(&mut engine);
    attach_all(&mut engine, &vms[1..2]);
    settle(&mut engine);
    check_counters(&engine);
    let (stats, share) = (engine.stats(), LIMIT * 60 / 64 / 3);
    assert!(stats.vms[0].vmas > share && stats.vms[1].merging_pages >= 18, "{stats:?}");
}

#[test]
fn a_newcomer_shares_with_a_vm_that_has_more_than_its_share() {
    const LIMIT: u64 = 2000;
    const PAGES: u32 = 1000;
    let mut engine = with_mappings(LIMIT);
    let (hoarder, share) = hoarder(&mut engine, LIMIT, PAGES);
    let before = engine.stats();
    let newcomer = TestVm::attached(&mut engine, 1, PAGES);
    (0..PAGES).for_each(|n| newcomer.write(n as usize, &page(partner_content(&newcomer, n))));
    settle(&mut engine);
    check_counters(&engine);
    let stats = engine.stats();
    let vm = &stats.vms[1];
    assert!(vm.merging_pages + 1 >= (share * 7 / 8).min(u64::from(PAGES)) / 2, "{share}: {vm:?}");
    // What is given back for it is not what it shares: nothing is merged to be unmerged.
    let merges = stats.events.merges - before.events.merges;
    assert!(merges <= 2 * vm.merging_pages + vm.merging_pages / 4, "{merges}: {stats:?}");
    (0..PAGES).for_each(|n| {
        assert_eq!(newcomer.read(n as usize), page(partner_content(&newcomer, n)));
    });
    // A page that was deferred and is written is not waited for.
    (0..PAGES).for_each(|n| hoarder.write(n as usize, &page(90_000_000 + n)));
    settle(&mut engine);
    check_counters(&engine);
    // Nor is one of a VM that is switched off.
    (0..PAGES).for_each(|n| {
        hoarder.write(n as usize, &page(partner_content(&hoarder, n)));
    });
    settle(&mut engine);
    engine.set_mode(hoarder.id, DedupMode::Off).unwrap();
    settle(&mut engine);
    check_counters(&engine);
    assert_eq!(engine.stats().pages_sharing, 0, "{:?}", engine.stats());
}

#[test]
fn a_newcomer_that_was_held_back_tries_all_that_it_has_deferred() {
    for limit in [400, 1000] {
        let mut engine = with_mappings(limit);
        let _first = doubled(&mut engine, 0, 2 * limit as u32);
        settle(&mut engine);
        let _second = doubled(&mut engine, 1, 2 * limit as u32);
        settle(&mut engine);
        let (share, stats) = (limit * 60 / 64 / 2, engine.stats());
        assert!(stats.vms[1].vmas >= share * 7 / 8, "share {share}: {stats:?}");
        check_counters(&engine);
    }
}

#[test]
fn a_guest_that_took_most_mappings_and_wrote_all_its_pages_stops_nobody_from_folding() {
    let mut engine = with_mappings(4000);
    // Of one content, so that no two pages can lie in one mapping.
    let hostile = TestVm::attached(&mut engine, 0, 3000);
    (0..3000).for_each(|number| hostile.write(number, &page(7)));
    settle(&mut engine);
    let alone = engine.stats();
    assert!(alone.vmas_used > 2700, "{alone:?}");
    let own = |number: usize| page(50_000_000 + number as u32);
    (0..3000).for_each(|number| hostile.write(number, &own(number)));
    let honest: Vec<TestVm> = (1..9).map(|id| doubled(&mut engine, id, 400)).collect();
    settle(&mut engine);
    let stats = engine.stats();
    for vm in &stats.vms[1..] {
        assert_eq!((vm.merging_pages, vm.deferred_pages), (200, 0), "{stats:?}");
    }
    check_counters(&engine);
    (0..3000).for_each(|number| assert_eq!(hostile.read(number), own(number)));
    for vm in &honest {
        (0..400).for_each(|n| assert_eq!(vm.read(n), doubled_page(vm, n as u32)));
    }
    // Nor does it when it shares them all again.
    (0..3000).for_each(|number| hostile.write(number, &page(7)));
    settle(&mut engine);
    let stats = engine.stats();
    assert!(stats.vms[1..].iter().all(|vm| vm.merging_pages == 200), "{stats:?}");
    check_counters(&engine);
}
