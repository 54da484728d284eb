//! The life of a page, on real mappings.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use common::{TestVm, config, engine, page, settle, sharing_limit};
use pagefold_dedup::{AttachError, DedupMode, Engine, EngineConfig, PAGE_SIZE, VmId};

const ZEROES: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

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

#[test]
fn equal_pages_of_two_vms_share_one_slot() {
    let mut engine = engine();
    let (a, b) = (TestVm::attached(&mut engine, 0, 64), TestVm::attached(&mut engine, 1, 64));
    for number in 0..40 {
        a.write(number, &page(number as u32));
        b.write(number + 10, &page(number as u32));
    }
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing), (40, 40));
    assert_eq!(stats.resident_bytes, Some(40 * PAGE_SIZE as u64));
    assert_eq!(stats.vms[0].extents, 1, "slots follow the order of the pages: {:?}", stats.vms);
    assert_eq!(stats.vms[1].extents, 1, "{:?}", stats.vms);
    for number in 0..40 {
        assert_eq!(a.read(number), page(number as u32));
        assert_eq!(b.read(number + 10), page(number as u32));
    }
}

#[test]
fn equal_pages_of_one_vm_are_shared() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 200);
    (0..200).for_each(|number| vm.write(number, &page(7)));
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing), (1, 199));
    (0..200).for_each(|number| assert_eq!(vm.read(number), page(7)));
}

#[test]
fn pages_that_differ_in_one_byte_are_not_shared() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 2);
    vm.write(0, &page(1));
    vm.write(1, &page(1));
    vm.poke(1, 4095, 0);
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing, stats.pages_unshared), (0, 0, 2));
}

#[test]
fn zero_pages_are_given_back_and_come_to_life_when_written() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 32);
    (0..32).for_each(|number| vm.write(number, &ZEROES));
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_zero, stats.pages_shared, stats.resident_bytes), (32, 0, Some(0)));
    assert_eq!(stats.vms[0].vmas, 1, "no mapping was split");
    assert_eq!(vm.read(3), ZEROES);
    vm.write(3, &page(3));
    settle(&mut engine);
    assert_eq!(engine.stats().pages_zero, 31);
    assert_eq!(vm.read(3), page(3));
    (0..32).for_each(|number| vm.poke(number, 9, 9));
    settle(&mut engine);
    assert_eq!(engine.stats().pages_zero, 0);
}

#[test]
fn a_write_breaks_sharing_and_writing_back_restores_it_without_a_new_mapping() {
    let (mut engine, a, b) = twins(16);
    let vmas = engine.stats().vmas_used;

    a.poke(5, 100, 1);
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing, stats.events.breaks), (16, 15, 1));
    assert_eq!(b.read(5), page(5), "the other VM does not see the write");

    a.write(5, &page(5));
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_sharing, stats.events.remerges), (16, 1));
    assert_eq!(stats.vmas_used, vmas);

    // A page that went back to its slot by DONTNEED can be written again: nothing blocks it.
    a.poke(5, 100, 2);
    assert_eq!(a.read(5)[100], 2);
    assert_eq!(b.read(5), page(5));
}

#[test]
fn a_page_in_an_extent_that_becomes_zero_reads_as_zero() {
    let (mut engine, a, b) = twins(16);
    (4..8).for_each(|number| a.write(number, &ZEROES));
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_zero, stats.pages_sharing), (4, 12));
    for number in 0..16 {
        let expected = if (4..8).contains(&number) { ZEROES } else { page(number as u32) };
        assert_eq!(a.read(number), expected);
        assert_eq!(b.read(number), page(number as u32));
    }
}

#[test]
fn a_slot_is_freed_with_its_last_sharer_and_its_old_mapping_never_shows_through() {
    let (mut engine, a, b) = twins(8);
    for number in 0..8 {
        a.write(number, &page(100 + number as u32));
        b.write(number, &page(200 + number as u32));
    }
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing), (0, 0));
    assert_eq!(stats.domains[0].store_bytes, Some(0), "the kernel has the memory back");
    // New contents in new slots, while the old numbers still lie under the private pages.
    for number in 0..4 {
        a.write(number, &page(300 + number as u32));
        b.write(number, &page(300 + number as u32));
    }
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 4);
    for number in 0..8 {
        let base = if number < 4 { (300, 300) } else { (100, 200) };
        assert_eq!(a.read(number), page(base.0 + number as u32));
        assert_eq!(b.read(number), page(base.1 + number as u32));
    }
}

#[test]
fn a_page_that_changed_behind_everybodys_back_is_not_shared() {
    let mut engine = engine();
    let (a, b) = (TestVm::attached(&mut engine, 0, 4), TestVm::attached(&mut engine, 1, 4));
    a.write(0, &page(1));
    settle(&mut engine);
    assert_eq!(engine.stats().pages_unshared, 1);
    // Unknown to the change source: the tree believes that the page still waits.
    a.memory.write(0, &page(2));
    b.write(0, &page(1));
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing, stats.pages_unshared), (0, 0, 2));
    assert!(stats.events.declines > 0, "{:?}", stats.events);
    assert_eq!(stats.domains[0].store_bytes, Some(0));
    assert_eq!(a.read(0), page(2));
    assert_eq!(b.read(0), page(1));
}

#[test]
fn a_merge_whose_partner_declines_is_taken_back() {
    let mut engine = engine();
    let (a, b) = (TestVm::attached(&mut engine, 0, 4), TestVm::attached(&mut engine, 1, 4));
    b.write(0, &page(1));
    settle(&mut engine);
    // The second page of the pair is the one that has changed: the first is merged for nothing.
    b.memory.write(0, &page(2));
    a.write(0, &page(1));
    settle(&mut engine);
    let stats = engine.stats();
    assert!(stats.events.merges > 0 && stats.events.unshares > 0, "{:?}", stats.events);
    assert_eq!((stats.pages_shared, stats.pages_sharing, stats.pages_unshared), (0, 0, 2));
    assert_eq!(stats.domains[0].store_bytes, Some(0));
    assert_eq!(a.read(0), page(1));
    assert_eq!(b.read(0), page(2));
    a.poke(0, 7, 7);
    assert_eq!(a.read(0)[7], 7, "a page that was taken back can be written");
}

#[test]
fn vms_of_different_domains_never_share() {
    let mut engine = engine();
    let (a, b) = (TestVm::new(0, 8), TestVm::new(1, 8));
    a.attach(&mut engine, "one", DedupMode::On);
    b.attach(&mut engine, "other", DedupMode::On);
    for number in 0..8 {
        a.write(number, &page(number as u32));
        b.write(number, &page(number as u32));
    }
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_sharing, stats.pages_unshared, stats.domains.len()), (0, 16, 2));
}

#[test]
fn a_vm_is_attached_once_whatever_the_domain() {
    let (mut engine, a, b) = twins(4);
    settle(&mut engine);
    let impostor = TestVm::new(a.id.0, 4);
    for domain in ["test", "other"] {
        let refused = impostor.try_attach(&mut engine, domain, DedupMode::On);
        assert!(matches!(refused, Err(AttachError::Attached(vm)) if vm == a.id), "{refused:?}");
    }
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_sharing, stats.domains.len()), (4, 1));
    assert_eq!(a.read(0), b.read(0));
}

#[test]
fn memory_is_attached_once_whatever_the_number_of_the_vm() {
    let (mut engine, a, b) = twins(4);
    settle(&mut engine);
    let before = engine.stats();
    let mut impostor = a.clone();
    impostor.id = VmId(7);
    for domain in ["test", "other"] {
        let refused = impostor.try_attach(&mut engine, domain, DedupMode::On);
        let Err(AttachError::Occupied { vm: VmId(7), occupant }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(occupant, a.id);
        engine.check().unwrap();
    }
    // It was never attached, so nothing ends with it.
    engine.detach_and_discard(impostor.id);
    let after = engine.stats();
    assert_eq!((after.pages_sharing, after.domains.len()), (4, 1));
    assert_eq!((after.vms, after.vmas_used), (before.vms, before.vmas_used));
    assert_eq!((a.read(3), b.read(3)), (page(3), page(3)));

    // Once its VM has ended, the memory may be another's.
    engine.detach_and_discard(a.id);
    impostor.attach(&mut engine, "test", DedupMode::On);
    impostor.write(3, &page(3));
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 1);
}

#[test]
fn modes_limit_what_is_folded() {
    let mut engine = engine();
    let (off, zero) = (TestVm::new(0, 4), TestVm::new(1, 4));
    off.attach(&mut engine, "test", DedupMode::Off);
    zero.attach(&mut engine, "test", DedupMode::Zero);
    for vm in [&off, &zero] {
        vm.write(0, &ZEROES);
        vm.write(1, &page(1));
        vm.write(2, &page(1));
    }
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_zero, stats.pages_sharing, stats.pages_unshared), (1, 0, 0));
    assert_eq!(stats.vms[0].zero_pages, 0);
}

#[test]
fn nothing_is_left_when_vms_are_detached() {
    let mut engine = engine();
    let vms: Vec<TestVm> = (0..3).map(|id| TestVm::attached(&mut engine, id, 64)).collect();
    for vm in &vms {
        (0..64).for_each(|number| vm.write(number, &page(number as u32 % 20)));
    }
    settle(&mut engine);
    assert_eq!(engine.stats().pages_shared, 20);
    engine.detach_and_discard(vms[1].id);
    engine.check().unwrap();
    assert_eq!(vms[1].read(0), ZEROES);
    assert_eq!(vms[0].read(0), page(0));
    engine.detach_and_discard(vms[0].id);
    engine.check().unwrap();
    engine.detach_and_discard(vms[2].id);
    let stats = engine.stats();
    assert_eq!((stats.vmas_used, stats.domains.len(), stats.saved_bytes), (0, 0, 0));
    assert!(stats.events.merges > 0, "what happened is not forgotten");
}

#[test]
fn short_runs_are_deferred_when_mappings_are_short_and_taken_up_when_they_are_not() {
    let mut engine = Engine::new(EngineConfig { max_mappings: Some(24), ..config() }).unwrap();
    let (a, b) = (TestVm::attached(&mut engine, 0, 128), TestVm::attached(&mut engine, 1, 128));
    for number in 0..128 {
        // In b every other page is elsewhere, so that its runs are single pages.
        let other = if number % 2 == 0 { number } else { (number + 64) % 128 };
        a.write(number, &page(number as u32));
        b.write(other, &page(number as u32));
    }
    settle(&mut engine);
    let stats = engine.stats();
    assert!(stats.events.budget_skips > 0, "{:?}", stats.events);
    assert!(stats.vmas_used <= 24, "{} mappings", stats.vmas_used);
    for number in 0..128 {
        let other = if number % 2 == 0 { number } else { (number + 64) % 128 };
        assert_eq!(a.read(number), page(number as u32));
        assert_eq!(b.read(other), page(number as u32));
    }
}

/// What the kernel's `ksm_tests -M` expects of that many equal pages and that limit.
fn expected_of_equal_pages(page_count: u64, limit: u64) -> (u64, u64) {
    match page_count % limit {
        0 | 1 => (page_count / limit, page_count / limit * (limit - 1)),
        _ => (page_count / limit + 1, page_count - (page_count / limit + 1)),
    }
}

// The kernel's ksm_tests -M (docs/kernel-selftests.md).
#[test]
fn no_slot_has_more_sharers_than_allowed() {
    for (page_count, limit) in [(9, 3), (10, 3), (11, 3), (2, 2), (3, 2), (64, 2), (600, 256)] {
        let config = sharing_limit(limit);
        let mut engine = Engine::new(config).unwrap();
        let vm = TestVm::attached(&mut engine, 0, page_count);
        (0..page_count as usize).for_each(|number| vm.write(number, &page(7)));
        settle(&mut engine);
        let stats = engine.stats();
        let expected = expected_of_equal_pages(page_count.into(), limit.into());
        assert_eq!((stats.pages_shared, stats.pages_sharing), expected, "{page_count} by {limit}");
        (0..page_count as usize).for_each(|number| assert_eq!(vm.read(number), page(7)));
    }
}

// The one page that is too many waits for a twin: a slot is made for two.
#[test]
fn the_258th_sharer_opens_a_dup_and_a_chain_of_one_collapses() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 258);
    (0..257).for_each(|number| vm.write(number, &page(7)));
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing, stats.pages_unshared), (1, 255, 1));
    assert_eq!((stats.stable_node_chains, stats.stable_node_dups), (0, 0));

    vm.write(257, &page(7));
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing, stats.pages_unshared), (2, 256, 0));
    assert_eq!((stats.stable_node_chains, stats.stable_node_dups), (1, 2));

    // The two pages of the second slot are written: one of the two slots is left.
    let mut changed = 0;
    for number in 0..258 {
        vm.poke(number, 9, 9);
        settle(&mut engine);
        changed += 1;
        if engine.stats().stable_node_chains == 0 {
            break;
        }
    }
    let stats = engine.stats();
    assert_eq!((stats.stable_node_chains, stats.stable_node_dups), (0, 0));
    assert!(changed < 258 && stats.pages_sharing > 0, "after {changed} writes: {stats:?}");
}

#[test]
fn a_page_that_waits_because_all_slots_are_full_gets_the_first_room() {
    let config = sharing_limit(3);
    let mut engine = Engine::new(config).unwrap();
    let vm = TestVm::attached(&mut engine, 0, 4);
    (0..4).for_each(|number| vm.write(number, &page(7)));
    settle(&mut engine);
    assert_eq!(engine.stats().pages_unshared, 1);
    vm.poke(0, 9, 9);
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing, stats.pages_unshared), (1, 2, 1));
}

#[test]
fn a_limit_below_two_is_refused() {
    let error = Engine::new(sharing_limit(1)).err().unwrap();
    let cause = std::error::Error::source(&error).unwrap();
    assert!(cause.to_string().contains("from 2 to"), "{cause}");
}
