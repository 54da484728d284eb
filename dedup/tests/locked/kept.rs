//! A lock that the program has made stays on its pages, whatever is mapped there.

#![allow(clippy::cast_possible_truncation, reason = "numbers of pages are small")]

use std::ops::Range;

use pagefold_dedup::{AnonymousMemory, Knobs, LinearIndex, Step};

use super::*;

/// What both kinds of locks lock.
const LOCKED: Range<usize> = 20..24;

/// The locked part of a region.
fn part(whole: &Region) -> Region {
    let host_addr = whole.host_addr + LOCKED.start * PAGE_SIZE;
    Region { host_addr, page_count: LOCKED.len() as u32, ..*whole }
}

/// Has twins of which the first has locked pages, before or after a visit.
fn with_locked_twins(is_noticed: bool, check: impl Fn(&mut Engine, &TestVm, &TestVm, &Region)) {
    for lock in [lock, lock_on_fault] {
        let mut engine = engine();
        let [vm, other] = twins(&mut engine);
        let locked = part(&vm.memory.regions()[0]);
        lock(&locked).unwrap();
        if is_noticed {
            engine.pass();
        }
        check(&mut engine, &vm, &other, &locked);
    }
}

#[test]
fn locked_memory_that_is_given_up_takes_none_and_stays_locked() {
    let _alone = alone();
    for is_noticed in [false, true] {
        // All of what is locked and more, and a part of it.
        for given_up in [16..32, 22..30] {
            with_locked_twins(is_noticed, |engine, vm, other, locked| {
                let (first, page_count) = (LinearIndex(given_up.start), given_up.len() as u32);
                let report = engine.discard(vm.id, first, page_count).unwrap();
                assert_eq!((report.discarded_pages, report.kept_pages), (page_count.into(), 0));
                let whole = vm.memory.regions()[0];
                assert_eq!(locked_bytes(locked), locked.len_bytes(), "what was locked");
                assert_eq!(locked_bytes(&whole), locked.len_bytes(), "and nothing else");
                for number in 0..64_u32 {
                    let is_given_up = given_up.contains(&number);
                    let expected = if is_given_up { [0; PAGE_SIZE] } else { page(number) };
                    assert_eq!(vm.read(number as usize), expected);
                    assert_eq!(other.read(number as usize), page(number));
                }
                settle(engine);
                engine.check().unwrap();
            });
        }
    }
}

#[test]
fn memory_of_a_vm_that_has_ended_stays_locked() {
    let _alone = alone();
    for is_noticed in [false, true] {
        with_locked_twins(is_noticed, |engine, vm, _other, locked| {
            engine.detach_and_discard(vm.id);
            engine.check().unwrap();
            let whole = vm.memory.regions()[0];
            assert_eq!(locked_bytes(locked), locked.len_bytes(), "what was locked");
            assert_eq!(locked_bytes(&whole), locked.len_bytes(), "and nothing else");
            assert_eq!(vm.read(LOCKED.start), [0; PAGE_SIZE]);
            let refused = reason(vm.try_attach(engine, "test", DedupMode::On));
            assert!(refused.contains("is locked"), "{refused}");
        });
    }
}

#[test]
fn locked_pages_that_move_to_other_addresses_are_locked_there() {
    let _alone = alone();
    for is_noticed in [false, true] {
        with_locked_twins(is_noticed, |engine, vm, _other, locked| {
            let destination = Arc::new(AnonymousMemory::new(64).unwrap());
            let [from, to] = [&vm.memory, &destination].map(|memory| memory.regions()[0]);
            engine.relocate(vm.id, LinearIndex(0), 64, destination).unwrap();
            engine.check().unwrap();
            let found = [part(&to), to].map(|region| locked_bytes(&region));
            assert_eq!(found, [locked.len_bytes(); 2]);
            assert_eq!(locked_bytes(&from), 0);
        });
    }
}

#[test]
fn pages_do_not_move_to_addresses_that_are_locked() {
    let _alone = alone();
    let mut engine = engine();
    let [vm, _other] = twins(&mut engine);
    let destination = Arc::new(AnonymousMemory::new(64).unwrap());
    destination.write(0, &page(1000));
    let locked = part(&destination.regions()[0]);
    lock(&locked).unwrap();
    let refused = engine.relocate(vm.id, LinearIndex(0), 64, destination.clone()).unwrap_err();
    let reason = refused.source().unwrap().to_string();
    assert!(reason.contains("locked"), "{reason}");
    assert_eq!(locked_bytes(&locked), locked.len_bytes());
    let mut bytes = [0; PAGE_SIZE];
    destination.read(0, &mut bytes);
    assert_eq!(bytes, page(1000), "nothing is lost");
    engine.check().unwrap();

    unlock(&locked).unwrap();
    engine.relocate(vm.id, LinearIndex(0), 64, destination).unwrap();
    engine.check().unwrap();
    assert_eq!(engine.stats().pages_sharing, 64);
}

#[test]
fn locked_pages_whose_slot_has_failed_get_another_and_stay_locked() {
    let _alone = alone();
    for is_noticed in [false, true] {
        let mut engine = engine();
        let [vm, other] = twins(&mut engine);
        let (whole, failed) = (vm.memory.regions()[0], common::slot(&engine, vm.id, 21));
        // A good copy of the slot's bytes.
        other.write(21, &page(21));
        let locked = part(&whole);
        lock_on_fault(&locked).unwrap();
        if is_noticed {
            engine.pass();
        }
        let report = engine.recover_slot("test", failed).unwrap();
        assert_eq!(report.recovered_pages, 1, "{report:?}");
        let found = [locked, whole].map(|region| locked_bytes(&region));
        assert_eq!(found, [locked.len_bytes(); 2]);
        assert_eq!(vm.read(21), page(21));
        settle(&mut engine);
        engine.check().unwrap();
    }
}

/// Steps of a few pages each, `pass_count` passes of them, with something done before one of the steps. Says
/// whether there were that many.
fn passes_with(engine: &mut Engine, pass_count: usize, at: usize, act: impl Fn()) -> bool {
    let (mut steps, mut passes) = (0, 0);
    while passes < pass_count {
        if steps == at {
            act();
        }
        steps += 1;
        passes += usize::from(matches!(engine.step(), Step::Done(_)));
    }
    at < steps
}

/// A way to lock memory.
type Lock = fn(&Region) -> std::io::Result<()>;

/// Has pages of the first of two VMs be locked before each step of the passes that fold them, in turn.
fn lock_before_each_step(locks: &[Lock], prepare: impl Fn(&mut Engine) -> [TestVm; 2]) {
    let _alone = alone();
    for lock in locks {
        for at in 0.. {
            let mut engine = engine();
            let vms = prepare(&mut engine);
            let before = vms.each_ref().map(|vm| [0, 20, 21, 22, 23, 63].map(|page| vm.read(page)));
            engine.set_knobs(Knobs { pages_to_scan: 16, ..engine.knobs() }).unwrap();
            let whole = vms[0].memory.regions()[0];
            let locked = part(&whole);
            if !passes_with(&mut engine, 3, at, || lock(&locked).unwrap()) {
                assert!(at > 8, "{at} steps do not interrupt anything");
                break;
            }
            assert_eq!(
                locked_bytes(&locked),
                locked.len_bytes(),
                "what was locked before step {at}"
            );
            settle(&mut engine);
            engine.check().unwrap();
            assert_eq!(
                locked_bytes(&locked),
                locked.len_bytes(),
                "what was locked before step {at}"
            );
            assert_eq!(locked_bytes(&whole), locked.len_bytes(), "and nothing else");
            let after = vms.each_ref().map(|vm| [0, 20, 21, 22, 23, 63].map(|page| vm.read(page)));
            assert_eq!(before, after);
            let merging = engine.stats().vms[1].merging_pages;
            assert!(merging == 0 || merging >= 60, "others are folded: {merging}");
        }
    }
}

#[test]
fn a_lock_that_is_made_before_a_step_of_a_pass_outlives_what_the_pass_merges() {
    lock_before_each_step(&[lock, lock_on_fault], |engine| {
        [0, 1].map(|id| {
            let vm = TestVm::attached(engine, id, 64);
            (0..64).for_each(|number| vm.write(number as usize, &page(number)));
            vm
        })
    });
}

#[test]
fn a_lock_that_is_made_before_a_step_of_a_pass_outlives_pages_of_zeroes_over_slots() {
    lock_before_each_step(&[lock], |engine| {
        let vms = twins(engine);
        for vm in &vms {
            (0..64).for_each(|number| vm.write(number, &[0; PAGE_SIZE]));
        }
        vms
    });
}

#[test]
fn a_lock_that_is_made_before_a_step_of_a_pass_outlives_returns_to_slots() {
    lock_before_each_step(&[lock], |engine| {
        let vms = twins(engine);
        for vm in &vms {
            (0..64).for_each(|number| vm.write(number as usize, &page(number)));
        }
        vms
    });
}
