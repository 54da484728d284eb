//! A limit on file sizes that is lowered while memory is folded: alone in its process, which the kernel would
//! end by a signal.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../store_refused/sys/mod.rs"]
mod sys;

use common::{check_counters, engine, settle, twins};
use pagefold_dedup::PAGE_SIZE;

const PAGES: u32 = 100;
const MOST: u64 = 10;

#[test]
fn a_store_that_may_not_grow_is_an_error_and_no_signal() {
    let mut engine = engine();
    let _vms = twins(&mut engine, PAGES);
    // In the middle of a page of the store, and of what is written at once.
    sys::lower_file_limit(Some(MOST * PAGE_SIZE as u64 + 17));
    (0..4).for_each(|_| drop(engine.pass()));
    let stats = engine.stats();
    assert_eq!(stats.pages_shared, MOST, "{stats:?}");
    check_counters(&engine);
    sys::lower_file_limit(None);
    settle(&mut engine);
    assert_eq!(engine.stats().pages_shared, u64::from(PAGES));
    check_counters(&engine);
}
