//! What the index takes of memory, and gives back: by its own count, and by an allocator's.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../common/mod.rs"]
mod common;
mod sys;

use std::sync::{Mutex, PoisonError};

use common::{TestVm, check_counters, engine, page, settle, sharing_limit};
use pagefold_dedup::{Engine, Knobs, LinearIndex, Run};
use sys::allocated_bytes;

const PAGES: u32 = 1 << 14;

/// What an rmap item takes.
const ITEM_BYTES: u64 = 12;

/// Held by each test: the allocator counts for all of them.
static ALONE: Mutex<()> = Mutex::new(());

/// What there is of an index: by its own count, and by the allocator's.
#[derive(Debug, Clone, Copy)]
struct Taken {
    counted: u64,
    allocated: u64,
}

impl Taken {
    fn by(engine: &Engine) -> Self {
        let counted = engine.stats().metadata_bytes;
        Self { counted, allocated: allocated_bytes() }
    }

    /// What has been added since `before`.
    fn since(self, before: Self) -> Self {
        let allocated = self.allocated.saturating_sub(before.allocated);
        Self { counted: self.counted.saturating_sub(before.counted), allocated }
    }

    fn is_at_most(self, part: u64, of: Self) -> bool {
        self.counted * part <= of.counted && self.allocated * part <= of.allocated
    }
}

fn unmerge(engine: &mut Engine) {
    engine.set_knobs(Knobs { run: Run::Unmerge, ..engine.knobs() }).unwrap();
    (0..4).for_each(|_| assert!(engine.pass().errors.is_empty()));
    assert_eq!(engine.stats().pages_shared, 0);
}

/// Two VMs that have `contents` contents in common and are folded, with what the index takes when it is
/// empty, and what is added then.
fn folded(engine: &mut Engine, contents: u32) -> ([TestVm; 2], Taken, Taken) {
    let vms = [0, 1].map(|id| TestVm::attached(engine, id, PAGES));
    (0..2).for_each(|_| assert!(engine.pass().errors.is_empty()));
    let empty = Taken::by(engine);
    for vm in &vms {
        (0..PAGES).for_each(|number| vm.write(number as usize, &page(number % contents)));
    }
    settle(engine);
    check_counters(engine);
    let added = Taken::by(engine).since(empty);
    (vms, empty, added)
}

#[test]
fn index_memory_comes_back_after_unmerging_everything() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // The second has a chain for every four pages.
    for (limit, contents) in [(256, PAGES), (2, PAGES / 4)] {
        let mut engine = Engine::new(sharing_limit(limit)).unwrap();
        let (_vms, empty, full) = folded(&mut engine, contents);
        unmerge(&mut engine);
        check_counters(&engine);
        let left = Taken::by(&engine).since(empty);
        assert!(left.is_at_most(32, full), "{left:?} of {full:?} are left, {empty:?} when empty");
    }
}

#[test]
fn index_memory_comes_back_after_detaching_all_vms() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut engine = engine();
    let last = TestVm::attached(&mut engine, 7, 1);
    assert!(engine.pass().errors.is_empty());
    let empty = Taken::by(&engine);
    let (vms, _, full) = folded(&mut engine, PAGES);
    for vm in &vms {
        engine.detach_and_discard(vm.id);
    }
    drop(vms);
    check_counters(&engine);
    // Another is still there, and with it the domain.
    let left = Taken::by(&engine).since(empty);
    assert!(left.is_at_most(32, full), "{left:?} of {full:?} are left, {empty:?} when empty");
    engine.detach_and_discard(last.id);
    assert_eq!(engine.stats().metadata_bytes, 0);
}

#[test]
fn index_memory_of_half_the_pages_comes_back_when_they_are_unmerged() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut engine = engine();
    let (vms, empty, full) = folded(&mut engine, PAGES);
    for vm in &vms {
        engine.set_mergeable(vm.id, LinearIndex(0), PAGES / 2, false).unwrap();
    }
    settle(&mut engine);
    (0..2).for_each(|_| assert!(engine.pass().errors.is_empty()));
    check_counters(&engine);
    let left = Taken::by(&engine).since(empty);
    // The items stay until their VM is switched off or leaves: they remember how old pages are.
    let items: u64 = engine.stats().vms.iter().map(|vm| vm.rmap_items * ITEM_BYTES).sum();
    let (left, full) = (left.counted - items, full.counted - items);
    assert!(left * 3 <= full * 2, "{left} of {full} and {items} of items");
}
