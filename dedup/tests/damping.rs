//! Pages that are broken again and again are merged ever more rarely, and others as before.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{TestVm, check_counters, engine, page, settle, twins};
use pagefold_dedup::{DedupMode, Engine, Knobs, PAGE_SIZE, PageState, Reason, Run};

const PAGES: u64 = 64;

/// Looks for which a page is passed over after its first breaks, and after any further one.
const SKIPS: [u64; 6] = [0, 0, 1, 2, 4, MOST_SKIPS];
const MOST_SKIPS: u64 = 8;

/// Passes in which the count of a page's breaks is decremented once.
const DECAY_PASSES: u64 = 64;

/// Pages that were merged so far, and pages that were broken.
fn merges_and_breaks(engine: &Engine) -> (u64, u64) {
    let events = engine.stats().events;
    (events.merges + events.remerges, events.breaks)
}

fn passes(engine: &mut Engine, count: u64) {
    for _ in 0..count {
        engine.pass();
    }
}

/// Writes other bytes to a VM's pages for a pass, then those they had, which are unchanged for one.
fn break_and_restore(engine: &mut Engine, vm: &TestVm) {
    let pages = || (0..).take(usize::try_from(PAGES).unwrap());
    pages().for_each(|number| vm.poke(number, 9, 1));
    engine.pass();
    (0..).zip(pages()).for_each(|(content, number)| vm.write(number, &page(content)));
    passes(engine, 2);
}

fn count_shared(engine: &Engine, vm: &TestVm) -> u64 {
    let is_shared = |number: &u64| {
        let found = engine.find(vm.id, number * PAGE_SIZE as u64).unwrap();
        matches!(found.state, PageState::Shared(_))
    };
    (0..PAGES).filter(is_shared).count() as u64
}

/// Two VMs that share all their pages, those of the first of which have been broken as often as counts.
fn thrashed() -> (Engine, [TestVm; 2]) {
    let mut engine = engine();
    let vms = twins(&mut engine, 64);
    settle(&mut engine);
    let rounds: u64 = SKIPS.iter().map(|skips| 1 + skips).sum();
    for _ in 0..rounds {
        break_and_restore(&mut engine, &vms[0]);
    }
    (engine, vms)
}

#[test]
fn pages_that_are_broken_and_restored_again_and_again_are_merged_ever_more_rarely() {
    const ROUNDS: u64 = 100;
    let mut engine = engine();
    let [vm, other] = twins(&mut engine, 64);
    settle(&mut engine);
    let before = merges_and_breaks(&engine);
    for _ in 0..ROUNDS {
        break_and_restore(&mut engine, &vm);
    }
    let after = merges_and_breaks(&engine);
    let (merges, breaks) = (after.0 - before.0, after.1 - before.1);
    // Each merge of a page is followed by a break in the next round, and that by so many rounds without.
    let (mut round, mut expected) = (0, 0);
    for skips in SKIPS.into_iter().chain(std::iter::repeat(MOST_SKIPS)) {
        round += 1 + skips;
        if round > ROUNDS {
            break;
        }
        expected += PAGES;
    }
    assert_eq!(expected, 14 * PAGES);
    // What decays meanwhile may have let each page be merged a little sooner while that still counts.
    assert!((expected..expected + 2 * PAGES).contains(&merges), "{merges} merges");
    assert!(breaks.abs_diff(merges) <= PAGES, "{breaks} breaks, {merges} merges");
    assert!(engine.stats().events.pages_skipped >= (ROUNDS - 16) * PAGES);

    // Left alone, they are all shared again by the time that the longest skips take.
    passes(&mut engine, MOST_SKIPS + 1);
    assert_eq!(count_shared(&engine, &vm), PAGES);
    for number in 0..64 {
        assert!([&vm, &other].iter().all(|vm| vm.read(number as usize) == page(number)));
    }
    check_counters(&engine);
}

#[test]
fn settling_waits_for_pages_that_are_passed_over_and_ends() {
    let (mut engine, [vm, _]) = thrashed();
    break_and_restore(&mut engine, &vm);
    assert_eq!(count_shared(&engine, &vm), 0);
    settle(&mut engine);
    assert_eq!(count_shared(&engine, &vm), PAGES);
    check_counters(&engine);
}

#[test]
fn a_page_is_merged_again_at_once_after_its_first_breaks() {
    let mut engine = engine();
    let [vm, _] = twins(&mut engine, 64);
    settle(&mut engine);
    for _ in 0..2 {
        break_and_restore(&mut engine, &vm);
        assert_eq!(count_shared(&engine, &vm), PAGES);
    }
    assert_eq!(engine.stats().events.pages_skipped, 0);
    break_and_restore(&mut engine, &vm);
    assert_eq!(count_shared(&engine, &vm), 0, "the third time in near succession");
}

#[test]
fn a_page_that_is_broken_rarely_is_never_passed_over() {
    let mut engine = engine();
    let [vm, _] = twins(&mut engine, 64);
    settle(&mut engine);
    for _ in 0..10 {
        break_and_restore(&mut engine, &vm);
        assert_eq!(count_shared(&engine, &vm), PAGES);
        passes(&mut engine, DECAY_PASSES);
    }
    assert_eq!(engine.stats().events.pages_skipped, 0);
}

#[test]
fn counts_of_pages_unchanged_for_long_decay_and_nothing_is_kept_of_them() {
    let metadata = |engine: &Engine| engine.stats().domains[0].metadata_bytes;
    let mut fresh = engine();
    let _twins = twins(&mut fresh, 64);
    settle(&mut fresh);
    let (mut engine, [vm, _]) = thrashed();
    settle(&mut engine);
    assert!(metadata(&engine) > metadata(&fresh));
    passes(&mut engine, SKIPS.len() as u64 * DECAY_PASSES);
    assert_eq!(metadata(&engine), metadata(&fresh));
    let before = engine.stats().events.pages_skipped;
    for _ in 0..2 {
        break_and_restore(&mut engine, &vm);
        assert_eq!(count_shared(&engine, &vm), PAGES);
    }
    assert_eq!(engine.stats().events.pages_skipped, before);
}

#[test]
fn without_the_smart_scan_every_page_is_merged_as_soon_as_it_is_at_rest() {
    let mut engine = engine();
    let smart_scan = false;
    engine.set_knobs(Knobs { smart_scan, ..engine.knobs() }).unwrap();
    let [vm, _] = twins(&mut engine, 64);
    settle(&mut engine);
    for _ in 0..20 {
        break_and_restore(&mut engine, &vm);
        assert_eq!(count_shared(&engine, &vm), PAGES);
    }
    assert_eq!(engine.stats().events.pages_skipped, 0);
}

#[test]
fn pages_that_are_unmerged_again_and_again_are_not_passed_over_for_it() {
    let mut engine = engine();
    let [vm, _] = twins(&mut engine, 64);
    settle(&mut engine);
    for run in [Run::Unmerge, Run::Fold].repeat(4) {
        engine.set_knobs(Knobs { run, ..engine.knobs() }).unwrap();
        settle(&mut engine);
    }
    for mode in [DedupMode::Off, DedupMode::On].repeat(4) {
        engine.set_mode(vm.id, mode).unwrap();
        settle(&mut engine);
    }
    assert_eq!(count_shared(&engine, &vm), PAGES);
    assert_eq!(engine.stats().events.pages_skipped, 0);
}

#[test]
fn a_page_that_is_passed_over_is_said_to_be() {
    let (mut engine, [vm, other]) = thrashed();
    break_and_restore(&mut engine, &vm);
    // It was passed over by the last pass.
    let reason = |engine: &Engine| engine.explain(vm.id, 0).unwrap().reason;
    let skips = u8::try_from(MOST_SKIPS - 1).unwrap();
    let Reason::Skipped { age, remaining_skips } = reason(&engine) else {
        panic!("{:?}", reason(&engine))
    };
    assert_eq!((age, remaining_skips), (10, skips));
    let text = engine.explain(vm.id, 0).unwrap().to_string();
    assert!(text.contains("skipped") && text.contains("7 more"), "{text}");
    assert_eq!(engine.explain(other.id, 0).unwrap().reason, Reason::Alone);
    let json = serde_json::to_string(&reason(&engine)).unwrap();
    assert_eq!(json, r#"{"kind":"skipped","detail":{"age":10,"remaining_skips":7}}"#);

    let smart_scan = false;
    engine.set_knobs(Knobs { smart_scan, ..engine.knobs() }).unwrap();
    assert_eq!(reason(&engine), Reason::Volatile);
    settle(&mut engine);
    assert_eq!(reason(&engine), Reason::Shared);
}
