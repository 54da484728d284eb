use std::thread;

use pagefold_dedup::{KnobError, Run, Unchanging};
use vm_memory::{Bytes, GuestAddress};

use super::*;

const PAGES: u64 = 256;

/// Longer than any test takes.
const FOR_EVER: Duration = Duration::from_hours(10);

/// Longer than anything here takes: only a failing test waits for it.
const PATIENCE: Duration = Duration::from_mins(1);

fn start(busy_interval: Duration, knobs: Knobs) -> DedupHost {
    let engine = EngineConfig { knobs, ..EngineConfig::default() };
    DedupHost::start(DedupConfig { busy_interval, engine, ..DedupConfig::default() }).unwrap()
}

/// Two VMs without anything that runs in them, whose pages are equal and distinct.
fn attach_twins(host: &DedupHost) {
    for vm in 0..2 {
        let ram = Arc::new(GuestRam::new(PAGES * 4096).unwrap());
        for page in 0..PAGES {
            ram.memory().write_obj(page + 1, GuestAddress(page * 4096)).unwrap();
        }
        host.attach(VmId(vm), &ram, Box::new(Unchanging), DedupMode::On).unwrap();
    }
}

fn set(host: &DedupHost, key: &str, value: &str) -> Result<Knobs, SetKnobsError> {
    host.set_knobs(vec![(key.to_owned(), value.to_owned())])
}

#[test]
fn requests_are_answered_in_the_middle_of_a_pass_and_sleeping_ends_when_it_is_told_to() {
    let knobs = Knobs { pages_to_scan: 1, sleep_millisecs: 36_000_000, ..Knobs::default() };
    let host = start(Duration::ZERO, knobs);
    attach_twins(&host);
    // Once the first step is over it sleeps, for hours.
    let end = std::time::Instant::now() + PATIENCE;
    while host.stats().unwrap().events.pages_scanned == 0 {
        assert!(std::time::Instant::now() < end, "{:?}", host.stats());
    }
    let stats = host.stats().unwrap();
    assert!(stats.events.pages_scanned < 2 * PAGES, "{stats:?}");
    set(&host, "sleep_millisecs", "0").unwrap();
    while host.stats().unwrap().pages_sharing < PAGES {
        assert!(std::time::Instant::now() < end, "{:?}", host.stats());
    }
}

#[test]
fn nobody_sleeps_while_somebody_waits_for_the_end_of_folding() {
    let knobs = Knobs { pages_to_scan: 1, sleep_millisecs: 36_000_000, ..Knobs::default() };
    let host = start(Duration::ZERO, knobs);
    attach_twins(&host);
    assert!(host.settle(PATIENCE).unwrap().settled);
    assert_eq!(host.stats().unwrap().pages_sharing, PAGES);
}

#[test]
fn whoever_waits_is_told_when_folding_is_stopped() {
    for (value, run) in [("0", Run::Stop), ("2", Run::Unmerge)] {
        // No pass will ever begin.
        let host = start(FOR_EVER, Knobs::default());
        attach_twins(&host);
        let waiter = thread::spawn({
            let host = host.clone();
            move || host.settle(FOR_EVER)
        });
        set(&host, "run", value).unwrap();
        // It is told so whichever of the two came first.
        assert_eq!(waiter.join().unwrap(), Err(SettleError::NotFolding(run)));
        assert_eq!(host.settle(FOR_EVER), Err(SettleError::NotFolding(run)));
    }
}

#[test]
fn everything_is_unmerged_at_once_and_then_nothing_is_done_until_it_is_to_fold_again() {
    let host = start(Duration::from_millis(1), Knobs::default());
    attach_twins(&host);
    assert!(host.settle(PATIENCE).unwrap().settled);
    assert_eq!(host.stats().unwrap().pages_shared, PAGES);
    let busy = set(&host, "max_page_sharing", "2");
    assert!(matches!(busy, Err(SetKnobsError::Knob(KnobError::Busy { .. }))), "{busy:?}");

    // Sleeping is for folding only.
    set(&host, "sleep_millisecs", "36000000").unwrap();
    set(&host, "pages_to_scan", "1").unwrap();
    set(&host, "run", "2").unwrap();
    let end = std::time::Instant::now() + PATIENCE;
    let unmerged = loop {
        let stats = host.stats().unwrap();
        if stats.vms.iter().all(|vm| vm.merging_pages == 0) {
            break stats;
        }
        assert!(std::time::Instant::now() < end, "{stats:?}");
    };
    assert_eq!((unmerged.pages_shared, unmerged.events.unmerges), (0, 2 * PAGES), "{unmerged:?}");
    set(&host, "max_page_sharing", "2").unwrap();
    set(&host, "run", "1").unwrap();
    assert!(host.settle(PATIENCE).unwrap().settled);
    assert_eq!(host.stats().unwrap().pages_sharing, PAGES);
    host.check().unwrap().unwrap();
}

#[test]
fn knobs_are_set_all_together_or_not_at_all() {
    let host = start(FOR_EVER, Knobs::default());
    let pairs = |pairs: &[(&str, &str)]| {
        let own = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        pairs.iter().map(own).collect::<Vec<_>>()
    };
    for bad in [
        &[("run", "0"), ("run", "3")][..],
        &[("smart_scan", "0"), ("max_page_sharing", "1")],
        &[("sleep_millisecs", "1"), ("no_such", "1")],
        &[("smart_scan", "0"), ("advisor_max_pages_to_scan", "1")],
    ] {
        assert!(host.set_knobs(pairs(bad)).is_err(), "{bad:?}");
        assert_eq!(host.knobs(), Ok(Knobs::default()), "{bad:?}");
    }
    set(&host, "advisor_mode", "scan-time").unwrap();
    // The advisor is off before the number is set, whichever was named first.
    let both = host.set_knobs(pairs(&[("pages_to_scan", "7"), ("advisor_mode", "none")])).unwrap();
    assert_eq!(both, Knobs { pages_to_scan: 7, ..Knobs::default() });
    assert_eq!(host.knobs(), Ok(both));
}

#[test]
fn a_vm_that_comes_while_nothing_is_folded_is_folded_later() {
    for value in ["0", "2"] {
        let host = start(Duration::from_millis(1), Knobs::default());
        set(&host, "run", value).unwrap();
        attach_twins(&host);
        assert_eq!(host.stats().unwrap().pages_shared, 0);
        set(&host, "run", "1").unwrap();
        assert!(host.settle(PATIENCE).unwrap().settled);
        assert_eq!(host.stats().unwrap().pages_sharing, PAGES);
    }
}

#[test]
fn a_compaction_is_answered_while_nothing_is_folded_too() {
    let host = start(Duration::from_millis(1), Knobs::default());
    attach_twins(&host);
    assert!(host.settle(PATIENCE).unwrap().settled);
    set(&host, "run", "0").unwrap();
    let report = host.compact(CompactScope::All).unwrap();
    assert_eq!((report.moved_slots, report.moved_pages), (PAGES, 2 * PAGES), "{report:?}");
    host.check().unwrap().unwrap();
    let again = host.compact(CompactScope::Gainful).unwrap();
    assert!(again.extents_after <= again.extents_before, "{again:?}");
}
