//! Detaching when the process has no descriptor to spare: alone in its process, whose limit it sets.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../common/mod.rs"]
mod common;
mod sys;

use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{engine, page, settle, twins};
use pagefold_dedup::{DedupMode, DetachError, Engine, VmId};

const PAGES: u32 = 64;

/// The limit is the whole process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_detach_for_which_there_was_no_descriptor_can_be_done_later() {
    let _alone = alone();
    let mut engine = engine();
    let vms = twins(&mut engine, PAGES);
    settle(&mut engine);
    let before = sys::set_max_files(1);
    let refused = engine.detach(vms[0].id).unwrap_err();
    sys::set_max_files(before);
    assert!(matches!(refused, DetachError::Mapped { .. }), "{refused:?}");
    engine.check().unwrap();

    engine.detach(vms[0].id).unwrap();
    for vm in &vms {
        (0..PAGES).for_each(|number| assert_eq!(vm.read(number as usize), page(number)));
    }
    engine.check().unwrap();
}

/// Has a VM be detached, in vain, while its mode is set to another; says what it is then.
fn mode_after(engine: &mut Engine, vm: VmId, mode: DedupMode) -> String {
    let mut detaching = engine.begin_detach(vm).unwrap();
    assert!(engine.detach_step(&mut detaching).is_none());
    engine.set_mode(vm, mode).unwrap();
    engine.pass();
    assert_eq!(engine.stats().vms[0].merging_pages, 0, "it is not folded meanwhile");
    let end = std::iter::from_fn(|| Some(engine.detach_step(&mut detaching))).find_map(|end| end);
    assert!(matches!(end, Some(Err(DetachError::Mapped { .. }))), "{end:?}");
    engine.stats().vms[0].mode.clone()
}

#[test]
fn a_mode_that_is_set_while_a_vm_is_detached_in_vain_is_kept() {
    let _alone = alone();
    let mut engine = engine();
    let [vm, _other] = twins(&mut engine, PAGES);
    settle(&mut engine);
    // Not even what moves pages can be opened.
    let before = sys::set_max_files(1);
    assert_eq!(mode_after(&mut engine, vm.id, DedupMode::Zero), "zero");
    assert_eq!(mode_after(&mut engine, vm.id, DedupMode::On), "on");
    (0..8).for_each(|_| drop(engine.pass()));
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
    // Detaching that was given up holds nothing back.
    drop(engine.begin_detach(vm.id));
    engine.set_mode(vm.id, DedupMode::On).unwrap();
    (0..8).for_each(|_| drop(engine.pass()));
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
    sys::set_max_files(before);
    engine.check().unwrap();
}
