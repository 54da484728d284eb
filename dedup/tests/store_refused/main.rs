//! A kernel that has no memory for the store, for a while: alone in its process, whose limit on
//! files it lowers.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

#[path = "../common/mod.rs"]
mod common;
mod sys;

use common::{check_counters, engine, page, settle, slot, twins};
use pagefold_dedup::errors::MoveError;
use pagefold_dedup::{MoveSlotError, PAGE_SIZE};

const PAGES: u32 = 64;
const ALLOWED: u32 = 16;

// No memory for a new slot.
#[test]
fn pages_for_which_the_kernel_has_no_store_stay_as_they_are_until_it_has() {
    let mut engine = engine();
    let vms = twins(&mut engine, PAGES);
    let check_bytes = || {
        for vm in &vms {
            (0..PAGES).for_each(|number| assert_eq!(vm.read(number as usize), page(number)));
        }
    };
    sys::limit_files(Some(u64::from(ALLOWED) * PAGE_SIZE as u64));
    for _ in 0..8 {
        engine.pass();
        check_counters(&engine);
        check_bytes();
    }
    let stats = engine.stats();
    let allowed = u64::from(ALLOWED);
    assert_eq!((stats.pages_shared, stats.pages_sharing), (allowed, allowed));
    assert!(stats.events.errors > 0, "the kernel refused nothing");
    let rest = 2 * u64::from(PAGES - ALLOWED);
    assert_eq!(stats.pages_unshared + stats.pages_volatile, rest, "{stats:?}");

    // Nor for a slot that what is shared could move to.
    let moved = engine.move_slot("test", slot(&engine, vms[0].id, 0));
    let refused = |error: &MoveSlotError| {
        matches!(error, MoveSlotError::Broker { source: MoveError::Store(_), .. })
    };
    assert!(moved.as_ref().is_err_and(refused), "{moved:?}");
    check_counters(&engine);
    check_bytes();

    sys::limit_files(None);
    settle(&mut engine);
    check_counters(&engine);
    check_bytes();
    let all = u64::from(PAGES);
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing), (all, all));
}
