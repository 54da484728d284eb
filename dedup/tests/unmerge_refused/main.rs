//! Unmerging for which the kernel has no memory.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../common/mod.rs"]
mod common;
mod sys;

use std::thread;
use std::time::Duration;

use common::{engine, page, settle, twins};
use pagefold_dedup::{DedupMode, DetachError, Engine, EngineConfig, Knobs, Run, Step};

const PAGES: u32 = 64;

// As of a cgroup at its limit, but by a protection that anybody can set.
#[test]
fn an_unmerge_that_fails_while_folding_is_stopped_is_counted_and_tried_again() {
    let mut engine = engine();
    let vms = twins(&mut engine, PAGES);
    settle(&mut engine);
    engine.set_knobs(Knobs { run: Run::Stop, ..engine.knobs() }).unwrap();
    sys::set_writable(&vms[0].memory, 0..PAGES as usize, false);
    engine.set_mode(vms[0].id, DedupMode::Off).unwrap();
    assert!(engine.can_unmerge());
    assert!(matches!(engine.step(), Step::Stopped), "nothing could be done");
    assert!(engine.is_unmerging() && !engine.can_unmerge(), "not at once again");
    let stats = engine.stats();
    assert_eq!(stats.vms[0].unmerging_pages, u64::from(PAGES));
    assert_eq!(stats.events.errors, 1);
    engine.pass();
    assert_eq!(engine.stats().events.errors, 2, "it was tried again");

    sys::set_writable(&vms[0].memory, 0..PAGES as usize, true);
    engine.pass();
    assert!(!engine.is_unmerging());
    let stats = engine.stats();
    assert_eq!((stats.vms[0].unmerging_pages, stats.vms[0].merging_pages), (0, 0));
    (0..PAGES).for_each(|number| assert_eq!(vms[0].read(number as usize), page(number)));
    engine.check().unwrap();
}

#[test]
fn a_vm_that_cannot_be_unmerged_keeps_no_other_from_being_so_however_short_a_step_is() {
    let config = EngineConfig { step_time: Some(Duration::ZERO), ..EngineConfig::default() };
    let mut engine = Engine::new(config).unwrap();
    let vms = twins(&mut engine, PAGES);
    settle(&mut engine);
    sys::set_writable(&vms[0].memory, 0..PAGES as usize, false);
    for vm in &vms {
        engine.set_mode(vm.id, DedupMode::Off).unwrap();
    }
    for _ in 0..100 {
        engine.step();
        thread::sleep(Duration::from_millis(5));
    }
    let stats = engine.stats();
    assert_eq!([0, 1].map(|vm: usize| stats.vms[vm].merging_pages), [u64::from(PAGES), 0]);
    sys::set_writable(&vms[0].memory, 0..PAGES as usize, true);
    engine.pass();
    assert!(!engine.is_unmerging());
    for (vm, number) in vms.iter().flat_map(|vm| (0..PAGES).map(move |number| (vm, number))) {
        assert_eq!(vm.read(number as usize), page(number));
    }
    engine.check().unwrap();
}

// As of a slot whose memory has failed: the kernel cannot copy what it held.
#[test]
fn a_page_that_cannot_be_copied_keeps_no_other_from_being_unmerged_or_its_vm_from_being_visited() {
    const LOST: usize = 2;
    let mut engine = engine();
    let vms = twins(&mut engine, PAGES);
    settle(&mut engine);
    sys::set_writable(&vms[0].memory, LOST..LOST + 1, false);
    engine.set_mode(vms[0].id, DedupMode::Off).unwrap();
    engine.pass();
    engine.pass();
    let shared = |engine: &Engine| [0, 1].map(|vm: usize| engine.stats().vms[vm].merging_pages);
    assert_eq!(shared(&engine)[0], 1, "just the one that is lost");
    assert!(engine.is_unmerging());

    // All that can be is folded again, and what is written is noticed.
    engine.set_mode(vms[0].id, DedupMode::On).unwrap();
    for vm in &vms {
        vm.write(7, &page(1000));
    }
    (0..8).for_each(|_| drop(engine.pass()));
    assert_eq!(shared(&engine), [u64::from(PAGES); 2]);
    let lost = engine.detach(vms[0].id);
    assert!(matches!(lost, Err(DetachError::Agent { .. })), "{lost:?}");
    sys::set_writable(&vms[0].memory, LOST..LOST + 1, true);
    engine.detach(vms[0].id).unwrap();
    for number in 0..PAGES {
        let expected = page(if number == 7 { 1000 } else { number });
        for vm in &vms {
            assert_eq!(vm.read(number as usize), expected);
        }
    }
}
