//! Memory that cannot be folded: locked, of huge pages, shared, or not there.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../common/mod.rs"]
mod common;
mod kept;
mod noticed;
mod sys;

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::{TestVm, config, page, settle};
use libc::{MAP_ANONYMOUS, MAP_HUGETLB, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE};
use pagefold_dedup::{
    AttachError, AttachSpec, CloneError, DedupMode, Engine, EngineConfig, ErrorChain, GuestMemory,
    PAGE_SIZE, Reason, Region, Unchanging, VmId,
};
use sys::{MappedMemory, lock, lock_all, lock_on_fault, unlock, unlock_all};

/// A store that the machine can bear, should all of it be populated.
const STORE_PAGES: u32 = 1 << 15;

/// What locks memory is the whole process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn engine() -> Engine {
    let config = EngineConfig { store_pages: Some(STORE_PAGES), ..config() };
    Engine::new(config).unwrap()
}

/// The causes of a refusal, as a person reads them.
fn reason(refusal: Result<(), AttachError>) -> String {
    ErrorChain::new(&refusal.unwrap_err()).to_string()
}

/// Two VMs with the same pages.
fn twins(engine: &mut Engine) -> [TestVm; 2] {
    let vms = [0, 1].map(|id| TestVm::attached(engine, id, 64));
    for number in 0..64_u32 {
        for vm in &vms {
            vm.write(number as usize, &page(number));
        }
    }
    settle(engine);
    engine.check().unwrap();
    vms
}

/// Bytes of shared memory that the process has in its page tables.
fn shared_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssShmem:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Bytes of a region that lie in locked mappings, by the kernel's account (`lo` of `VmFlags`).
fn locked_bytes(region: &Region) -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (start, end) = (region.host_addr, region.host_addr + region.len_bytes());
    let (mut inside, mut bytes) = (0, 0);
    for line in smaps.lines() {
        let address = |hex: &str| usize::from_str_radix(hex, 16).ok();
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        if let Some((first, last)) = range.and_then(|(a, b)| Some((address(a)?, address(b)?))) {
            inside = last.min(end).saturating_sub(first.max(start));
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            bytes += if flags.split(' ').any(|flag| flag == "lo") { inside } else { 0 };
        }
    }
    bytes
}

#[test]
fn memory_that_is_locked_later_stays_locked_when_its_mappings_of_the_store_are_given_back() {
    let _alone = alone();
    for lock in [lock, lock_on_fault] {
        for is_noticed in [false, true] {
            for is_detached in [false, true] {
                let mut engine = engine();
                let [vm, other] = twins(&mut engine);
                let whole = vm.memory.regions()[0];
                let host_addr = whole.host_addr + 20 * PAGE_SIZE;
                let part = Region { host_addr, page_count: 4, ..whole };
                lock(&part).unwrap();
                if is_noticed {
                    engine.pass();
                }
                assert_eq!(locked_bytes(&whole), part.len_bytes());
                if is_detached {
                    engine.detach(vm.id).unwrap();
                } else {
                    engine.set_mode(vm.id, DedupMode::Off).unwrap();
                    settle(&mut engine);
                    engine.check().unwrap();
                }
                assert_eq!(locked_bytes(&part), part.len_bytes(), "what was locked");
                assert_eq!(locked_bytes(&whole), part.len_bytes(), "and nothing else");
                for number in 0..64_u32 {
                    for vm in [&vm, &other] {
                        assert_eq!(vm.read(number as usize), page(number));
                    }
                }
                unlock(&part).unwrap();
            }
        }
    }
}

#[test]
fn memory_that_cannot_be_folded_is_refused_with_the_reason() {
    let _alone = alone();
    let mut engine = engine();
    let access = PROT_READ | PROT_WRITE;
    let anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
    for (access, flags, expected) in [
        (access, anonymous | MAP_HUGETLB, "hugetlb"),
        (access, MAP_SHARED | MAP_ANONYMOUS, "not private anonymous memory"),
        (PROT_READ, anonymous, "not private anonymous memory"),
    ] {
        let memory = Arc::new(MappedMemory::new(1024, access, flags).unwrap());
        let spec = AttachSpec {
            domain: "test".to_owned(),
            mode: DedupMode::On,
            memory,
            changes: Box::new(Unchanging),
        };
        let refused = reason(engine.attach(VmId(0), spec));
        assert!(refused.contains(expected), "{refused}");
    }
    let vm = TestVm::new(0, 16);
    lock(&vm.memory.regions()[0]).unwrap();
    let refused = reason(vm.try_attach(&mut engine, "test", DedupMode::On));
    assert!(refused.contains("is locked") && refused.contains("munlock"), "{refused}");
    unlock(&vm.memory.regions()[0]).unwrap();
    vm.attach(&mut engine, "test", DedupMode::On);
    engine.check().unwrap();
}

#[test]
fn a_clone_is_refused_before_a_byte_of_its_memory_is_lost() {
    let _alone = alone();
    let mut engine = engine();
    let [parent, _other] = twins(&mut engine);
    let child = TestVm::new(2, 64);
    child.write(3, &page(1003));
    let clone = |engine: &mut Engine| {
        engine.attach_clone(parent.id, child.id, child.memory.clone(), Box::new(Unchanging))
    };
    lock(&child.memory.regions()[0]).unwrap();
    let refused = clone(&mut engine).unwrap_err();
    unlock(&child.memory.regions()[0]).unwrap();
    assert!(matches!(refused, CloneError::Attach { .. }), "{refused:?}");
    assert_eq!((child.read(3), child.read(4)), (page(1003), [0; PAGE_SIZE]));
    lock_all(libc::MCL_FUTURE).unwrap();
    let refused = clone(&mut engine).unwrap_err();
    unlock_all().unwrap();
    assert!(matches!(refused, CloneError::Attach { .. }), "{refused:?}");
    assert_eq!((child.read(3), child.read(4)), (page(1003), [0; PAGE_SIZE]));
    engine.check().unwrap();

    clone(&mut engine).unwrap();
    settle(&mut engine);
    engine.check().unwrap();
    assert_eq!((child.read(3), child.read(4)), (page(3), page(4)));
}

#[test]
fn a_process_that_locks_what_it_maps_is_refused_and_no_store_is_populated() {
    let _alone = alone();
    let mut engine = engine();
    let vm = TestVm::new(0, 256);
    let before = shared_bytes();
    lock_all(libc::MCL_FUTURE).unwrap();
    let refused = reason(vm.try_attach(&mut engine, "test", DedupMode::On));
    unlock_all().unwrap();
    assert!(refused.contains("MCL_FUTURE"), "{refused}");
    assert!(shared_bytes() < before + STORE_PAGES as usize * PAGE_SIZE / 2);
    vm.attach(&mut engine, "test", DedupMode::On);
}

#[test]
fn memory_that_is_locked_later_counts_as_what_it_is_and_is_folded_when_it_is_unlocked() {
    let _alone = alone();
    for flags in [libc::MCL_CURRENT, libc::MCL_CURRENT | libc::MCL_FUTURE] {
        let mut engine = engine();
        let vms = twins(&mut engine);
        assert_eq!(engine.stats().pages_sharing, 64);
        let before = shared_bytes();
        lock_all(flags).unwrap();
        let populated = shared_bytes() - before;
        for _ in 0..4 {
            engine.pass();
        }
        let stats = engine.stats();
        let check = engine.check();
        unlock_all().unwrap();
        check.unwrap();
        // What has been used of the store is in memory, and was before; what has not is not.
        assert!(populated < STORE_PAGES as usize * PAGE_SIZE * 3 / 4, "{populated} bytes");
        assert_eq!((stats.pages_sharing, stats.pages_shared), (0, 0), "the kernel shares none");

        settle(&mut engine);
        engine.check().unwrap();
        assert_eq!(engine.stats().pages_sharing, 64);
        for number in 0..64_u32 {
            for vm in &vms {
                assert_eq!(vm.read(number as usize), page(number));
            }
        }
    }
}

#[test]
fn a_part_that_is_locked_later_is_named_and_the_rest_is_folded() {
    const LOCKED: std::ops::Range<usize> = 20..24;
    let _alone = alone();
    let mut engine = engine();
    let [vm, other] = twins(&mut engine);
    let whole = vm.memory.regions()[0];
    let host_addr = whole.host_addr + LOCKED.start * PAGE_SIZE;
    let part = Region { host_addr, page_count: 4, ..whole };
    lock(&part).unwrap();
    engine.pass();
    engine.pass();
    // Written, and equal again, in what is locked and beside it.
    for number in [21, 40, 41] {
        for vm in [&vm, &other] {
            vm.write(number, &page(1000));
        }
    }
    settle(&mut engine);
    let reasons = [19, 20, 21, 23, 24, 40]
        .map(|number| engine.explain(vm.id, (number * PAGE_SIZE) as u64).unwrap().reason);
    let (stats, checked) = (engine.stats(), engine.check());
    unlock(&part).unwrap();
    checked.unwrap();
    let [in_slot, locked] = [Reason::Shared, Reason::Locked];
    assert_eq!(reasons.each_ref(), [&in_slot, &locked, &locked, &locked, &in_slot, &in_slot]);
    assert_eq!(stats.vms[0].merging_pages, 64 - LOCKED.len() as u64);

    settle(&mut engine);
    engine.check().unwrap();
    assert_eq!(engine.stats().vms[0].merging_pages, 64);
    for number in 0..64_u32 {
        let expected = if [21, 40, 41].contains(&number) { 1000 } else { number };
        for vm in [&vm, &other] {
            assert_eq!(vm.read(number as usize), page(expected));
        }
    }
}

#[test]
fn nothing_is_merged_while_new_mappings_are_locked() {
    let _alone = alone();
    let mut engine = engine();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, 64));
    lock_all(libc::MCL_FUTURE).unwrap();
    for number in 0..64_u32 {
        for vm in &vms {
            vm.write(number as usize, &page(number));
        }
    }
    for _ in 0..4 {
        engine.pass();
    }
    let merges = engine.stats().events.merges;
    unlock_all().unwrap();
    assert_eq!(merges, 0, "the kernel would have copied each page at once");
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 64);
    engine.check().unwrap();
}

#[test]
fn pages_that_cannot_be_moved_while_new_mappings_are_locked_stay_as_they_are() {
    let _alone = alone();
    let mut engine = engine();
    let [vm, _other] = twins(&mut engine);
    let slot = common::slot(&engine, vm.id, 3);
    lock_all(libc::MCL_FUTURE).unwrap();
    // The visit that finds out.
    engine.pass();
    let moved = engine.move_slot("test", slot);
    let (checked, slot_after) = (engine.check(), common::slot(&engine, vm.id, 3));
    unlock_all().unwrap();
    assert_eq!((moved.unwrap().to, slot_after), (slot, slot));
    checked.unwrap();
}
