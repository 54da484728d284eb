//! Detaching when the process has no descriptor to spare: alone in its process, whose limit it sets.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../common/mod.rs"]
mod common;
mod sys;

use common::{engine, page, settle, twins};
use pagefold_dedup::DetachError;

const PAGES: u32 = 64;

#[test]
fn a_detach_for_which_there_was_no_descriptor_can_be_done_later() {
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
