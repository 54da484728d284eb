//! Unmerging for which the kernel has no memory.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../common/mod.rs"]
mod common;
mod sys;

use common::{engine, page, settle, twins};
use pagefold_dedup::{DedupMode, Knobs, Run, Step};

const PAGES: u32 = 64;

// As of a cgroup at its limit, but by a protection that anybody can set.
#[test]
fn an_unmerge_that_fails_while_folding_is_stopped_is_counted_and_tried_again() {
    let mut engine = engine();
    let vms = twins(&mut engine, PAGES);
    settle(&mut engine);
    engine.set_knobs(Knobs { run: Run::Stop, ..engine.knobs() }).unwrap();
    sys::set_writable(&vms[0].memory, false);
    engine.set_mode(vms[0].id, DedupMode::Off).unwrap();
    assert!(engine.can_unmerge());
    assert!(matches!(engine.step(), Step::Stopped), "nothing could be done");
    assert!(engine.is_unmerging() && !engine.can_unmerge(), "not at once again");
    let stats = engine.stats();
    assert_eq!(stats.vms[0].unmerging_pages, u64::from(PAGES));
    assert_eq!(stats.events.errors, 1);
    engine.pass();
    assert_eq!(engine.stats().events.errors, 2, "it was tried again");

    sys::set_writable(&vms[0].memory, true);
    engine.pass();
    assert!(!engine.is_unmerging());
    let stats = engine.stats();
    assert_eq!((stats.vms[0].unmerging_pages, stats.vms[0].merging_pages), (0, 0));
    (0..PAGES).for_each(|number| assert_eq!(vms[0].read(number as usize), page(number)));
    engine.check().unwrap();
}
