//! Mappings that save nothing any more are given back, by the kernel's own count.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{TestVm, check_counters, config, engine, page, settle};
use pagefold_dedup::{
    DedupMode, Engine, EngineConfig, Knobs, LinearIndex, PAGE_SIZE, Run, Step, VmId,
};

const PAGES: u32 = 4096;

/// What a page of one of two VMs holds: every second page is equal in both, and no other is.
fn content(vm: VmId, number: u32) -> [u8; PAGE_SIZE] {
    let pair = 10_000_000 * (vm.0 / 2);
    page(if number.is_multiple_of(2) {
        pair + number
    } else {
        pair + (1 + vm.0 % 2) * 1_000_000 + number
    })
}

/// Two VMs of which every second page is equal in both, folded as far as the budget allows.
fn folded(engine: &mut Engine, first_id: u32) -> [TestVm; 2] {
    let vms = [0, 1].map(|n| TestVm::attached(engine, first_id + n, PAGES));
    for vm in &vms {
        (0..PAGES).for_each(|number| vm.write(number as usize, &content(vm.id, number)));
    }
    (0..8).for_each(|_| drop(engine.pass()));
    engine.check().unwrap();
    vms
}

fn check_bytes(vms: &[TestVm; 2]) {
    for vm in vms {
        for number in 0..PAGES {
            let is_right = vm.read(number as usize) == content(vm.id, number);
            assert!(is_right, "page {number} of VM {}", vm.id);
        }
    }
}

/// Mappings of a VM's memory as `/proc/self/maps` lists them.
fn kernel_mappings(vm: &TestVm) -> usize {
    let region = pagefold_dedup::GuestMemory::regions(&*vm.memory)[0];
    let (first, end) = (region.host_addr, region.host_addr + region.len_bytes());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let address = |text: &str| usize::from_str_radix(text, 16).unwrap();
    let ranges = maps.lines().map(|line| line.split_once(' ').unwrap().0.split_once('-').unwrap());
    ranges.filter(|(start, after)| address(start) < end && address(after) > first).count()
}

fn unmerge_all(engine: &mut Engine) {
    engine.set_knobs(Knobs { run: Run::Unmerge, ..engine.knobs() }).unwrap();
    engine.pass();
    engine.check().unwrap();
    assert!(engine.is_unmerged());
}

#[test]
fn unmerged_memory_is_one_mapping_again() {
    let mut engine = engine();
    let vms = folded(&mut engine, 0);
    for vm in &vms {
        assert!(kernel_mappings(vm) >= PAGES as usize, "{}", kernel_mappings(vm));
    }
    unmerge_all(&mut engine);
    for vm in &vms {
        assert_eq!(kernel_mappings(vm), 1);
    }
    assert_eq!(engine.stats().vmas_used, 2);
    check_counters(&engine);
    check_bytes(&vms);
}

#[test]
fn a_vm_that_is_switched_off_holds_no_mappings() {
    let mut engine = engine();
    let vms = folded(&mut engine, 0);
    engine.set_mode(VmId(1), DedupMode::Off).unwrap();
    settle(&mut engine);
    assert_eq!(kernel_mappings(&vms[1]), 1);
    // With run=0, too.
    engine.set_knobs(Knobs { run: Run::Stop, ..engine.knobs() }).unwrap();
    engine.set_mode(VmId(0), DedupMode::Off).unwrap();
    while !matches!(engine.step(), Step::Stopped) {}
    assert_eq!(kernel_mappings(&vms[0]), 1);
    check_counters(&engine);
    check_bytes(&vms);
}

#[test]
fn a_range_that_is_opted_out_holds_no_mappings() {
    let mut engine = engine();
    let vms = folded(&mut engine, 0);
    let before = kernel_mappings(&vms[0]);
    engine.set_mergeable(VmId(0), LinearIndex(1024), 2048, false).unwrap();
    settle(&mut engine);
    assert!(kernel_mappings(&vms[0]) <= before - 2040, "{} of {before}", kernel_mappings(&vms[0]));
    check_counters(&engine);
    check_bytes(&vms);
}

#[test]
fn untouched_pages_between_unmerged_ones_stay_untouched() {
    let mut engine = engine();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, PAGES));
    for vm in &vms {
        (0..PAGES).step_by(4).for_each(|number| vm.write(number as usize, &page(number)));
    }
    settle(&mut engine);
    unmerge_all(&mut engine);
    for (vm, stats) in vms.iter().zip(&engine.stats().vms) {
        assert_eq!(kernel_mappings(vm), 1);
        assert_eq!(stats.private_bytes, Some(u64::from(PAGES / 4) * PAGE_SIZE as u64));
    }
}

// What a guest gives back by a balloon and uses again.
#[test]
fn pages_that_were_first_written_between_shared_ones_are_no_mappings_of_their_own_later() {
    let mut engine = engine();
    let vms = common::twins(&mut engine, PAGES);
    settle(&mut engine);
    let rewritten = |number: &u32| number % 64 < 32;
    for vm in &vms {
        for first in (0..PAGES).step_by(64) {
            engine.discard(vm.id, LinearIndex(first), 32).unwrap();
        }
        let own = |number| page(10_000_000 * (1 + vm.id.0) + number);
        (0..PAGES).filter(rewritten).for_each(|number| vm.write(number as usize, &own(number)));
    }
    settle(&mut engine);
    unmerge_all(&mut engine);
    assert_eq!(vms.each_ref().map(kernel_mappings), [1, 1]);
    engine.check().unwrap();
    for vm in &vms {
        let own = |number| page(10_000_000 * (1 + vm.id.0) + number);
        for number in 0..PAGES {
            let expected = if rewritten(&number) { own(number) } else { page(number) };
            assert!(vm.read(number as usize) == expected, "page {number} of VM {}", vm.id);
        }
    }
}

#[test]
fn so_it_is_when_the_shared_ones_were_given_back_before_anything_was_unmerged() {
    const PAGES: u32 = 640;
    let mut engine = engine();
    let vms = common::twins(&mut engine, PAGES);
    settle(&mut engine);
    for vm in &vms {
        let give_back = |engine: &mut Engine, from| {
            for first in (from..PAGES).step_by(64) {
                engine.discard(vm.id, LinearIndex(first), 32).unwrap();
            }
        };
        give_back(&mut engine, 0);
        for number in (0..PAGES).filter(|number| number % 64 < 32) {
            vm.write(number as usize, &page(10_000_000 * (1 + vm.id.0) + number));
        }
        give_back(&mut engine, 32);
    }
    settle(&mut engine);
    unmerge_all(&mut engine);
    assert_eq!(vms.each_ref().map(kernel_mappings), [1, 1]);
    engine.check().unwrap();
    for (vm, number) in vms.iter().flat_map(|vm| (0..PAGES).map(move |number| (vm, number))) {
        let own = page(10_000_000 * (1 + vm.id.0) + number);
        let expected = if number % 64 < 32 { own } else { [0; PAGE_SIZE] };
        assert!(vm.read(number as usize) == expected, "page {number} of VM {}", vm.id);
    }
}

#[test]
fn mappings_of_broken_pages_come_back_when_the_budget_is_short() {
    let config = EngineConfig { max_mappings: Some(9000), ..config() };
    let mut engine = Engine::new(config).unwrap();
    let greedy = folded(&mut engine, 0);
    let before = engine.stats();
    assert!(before.vmas_used > 6000, "the budget is not short: {before:?}");
    // Every page that was shared is written: nothing is saved by the mappings any more.
    for vm in &greedy {
        for number in (0..PAGES).step_by(2) {
            vm.write(number as usize, &page(number + 2_000_000 + vm.id.0 * 1_000_000));
        }
    }
    settle(&mut engine);
    let after = engine.stats();
    assert!(after.vmas_used <= before.vmas_used / 2, "{after:?}");
    // They are there for others.
    let others = folded(&mut engine, 2);
    // Less what the two VMs themselves need.
    assert!(engine.stats().pages_sharing + 2 >= before.pages_sharing, "{:?}", engine.stats());
    check_bytes(&others);
}

#[test]
fn no_write_is_lost_while_mappings_are_given_back() {
    let mut engine = engine();
    let vms = folded(&mut engine, 0);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for (vm, own) in vms.iter().zip(1_u64..) {
            let stop = &stop;
            scope.spawn(move || {
                let mut words: Vec<u64> = (0..PAGES as usize).map(|n| word(&vm.read(n))).collect();
                let mut random = own;
                while !stop.load(Ordering::Relaxed) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let number = (random >> 33) as usize % PAGES as usize;
                    // The page's own word, so that it comes to be equal to its twin's again.
                    let next = if random >> 63 == 0 { word(&page(number as u32)) } else { random };
                    assert_eq!(vm.swap(number, next), words[number], "page {number}");
                    words[number] = next;
                    let read = (random >> 13) as usize % PAGES as usize;
                    assert_eq!(word(&vm.read(read)), words[read], "page {read}");
                }
            });
        }
        for _ in 0..6 {
            engine.set_knobs(Knobs { run: Run::Unmerge, ..engine.knobs() }).unwrap();
            while !engine.is_unmerged() || engine.stats().vmas_used > 2 {
                engine.pass();
            }
            engine.set_knobs(Knobs { run: Run::Fold, ..engine.knobs() }).unwrap();
            for _ in 0..4 {
                engine.pass();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    settle(&mut engine);
    check_counters(&engine);
}

fn word(page: &[u8; PAGE_SIZE]) -> u64 {
    u64::from_ne_bytes(*page.first_chunk().unwrap())
}
