use std::thread;

use pagefold_dedup::{EngineConfig, KnobError, Run, Unchanging};
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
fn attach_twins(host: &DedupHost) -> [Arc<GuestRam>; 2] {
    [0, 1].map(|vm| {
        let ram = Arc::new(GuestRam::new(PAGES * 4096).unwrap());
        for page in 0..PAGES {
            ram.memory().write_obj(page + 1, GuestAddress(page * 4096)).unwrap();
        }
        host.attach(VmId(vm), &ram, Box::new(Unchanging), DedupMode::On).unwrap();
        ram
    })
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
        // It is notified whichever of the two came first.
        assert_eq!(waiter.join().unwrap(), Err(SettleError::NotFolding(run)));
        assert_eq!(host.settle(FOR_EVER), Err(SettleError::NotFolding(run)));
    }
}

#[test]
fn settling_that_runs_out_of_time_is_an_error() {
    // It takes two passes at least, and the second is due in hours.
    let host = start(FOR_EVER, Knobs::default());
    attach_twins(&host);
    let Err(SettleError::TimedOut(report)) = host.settle(Duration::ZERO) else {
        panic!("it cannot have settled")
    };
    assert!(!report.settled);
}

#[test]
fn intervals_and_limits_that_make_no_sense_are_refused_by_name() {
    let (too_long, defaults) = (Duration::MAX, DedupConfig::default());
    let no_store = EngineConfig { store_pages: Some(0), ..EngineConfig::default() };
    for (name, config) in [
        ("busy_interval", DedupConfig { busy_interval: too_long, ..defaults }),
        ("idle_interval", DedupConfig { idle_interval: too_long, ..defaults }),
        ("store_pages", DedupConfig { engine: no_store, ..defaults }),
    ] {
        let error = DedupHost::start(config).unwrap_err();
        let text = match &error {
            StartDedupError::Engine(error) => error.to_string(),
            error => error.to_string(),
        };
        assert!(text.starts_with(name), "{text}");
    }
}

#[test]
fn knobs_are_changed_by_their_fields_too() {
    let host = start(FOR_EVER, Knobs::default());
    let changed = host.change_knobs(|knobs| knobs.run = Run::Stop).unwrap();
    assert_eq!(changed, Knobs { run: Run::Stop, ..Knobs::default() });
    let refused = host.change_knobs(|knobs| (knobs.run, knobs.pages_to_scan) = (Run::Fold, 0));
    assert!(matches!(refused, Err(SetKnobsError::Knob(KnobError::BadValue { .. }))), "{refused:?}");
    assert_eq!(host.knobs(), Ok(changed));
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
fn the_end_of_the_advisor_is_answered_with_what_pages_to_scan_is_then() {
    let host = start(Duration::ZERO, Knobs::default());
    attach_twins(&host);
    let advised = || {
        set(&host, "advisor_mode", "scan-time").unwrap();
        let end = std::time::Instant::now() + PATIENCE;
        while host.knobs().unwrap().pages_to_scan == Knobs::default().pages_to_scan {
            assert!(std::time::Instant::now() < end, "the advisor has set nothing");
        }
        host.knobs().unwrap().pages_to_scan
    };
    advised();
    assert_eq!(set(&host, "advisor_mode", "none"), Ok(Knobs::default()));
    // What is named is meant, whatever the advisor has come to.
    set(&host, "run", "1").unwrap();
    let pages = advised();
    let both = [("advisor_mode", "none"), ("pages_to_scan", &pages.to_string())];
    let both = both.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let set = host.set_knobs(both.to_vec()).unwrap();
    assert_eq!(set, Knobs { pages_to_scan: pages, ..Knobs::default() });
    assert_eq!(host.knobs(), Ok(set));
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

/// A host that does not sleep between passes but for `sleep_millisecs`.
fn start_restless(knobs: Knobs) -> DedupHost {
    let engine = EngineConfig { knobs, ..EngineConfig::default() };
    let (busy_interval, idle_interval) = (Duration::ZERO, Duration::ZERO);
    DedupHost::start(DedupConfig { busy_interval, idle_interval, engine }).unwrap()
}

#[test]
fn folding_sleeps_between_passes_too_unless_somebody_waits_or_everything_is_unmerged() {
    let hours = Knobs { sleep_millisecs: 36_000_000, ..Knobs::default() };
    let host = start_restless(hours);
    let passes = || host.ask(|runner| runner.engine.stats().full_scans).unwrap();
    let left = || host.ask(|runner| runner.sleep_left()).unwrap();
    let wait_for_passes = |count| {
        let end = std::time::Instant::now() + PATIENCE;
        while passes() < count {
            assert!(std::time::Instant::now() < end, "{:?}", host.stats());
        }
    };
    // The first is made at once.
    attach_twins(&host);
    wait_for_passes(1);
    let is_long = |left: Option<Duration>| left.is_some_and(|left| left > Duration::from_hours(9));
    assert!(is_long(left()), "{:?}", left());
    let before = passes();
    assert!(host.settle(PATIENCE).unwrap().settled);
    assert!(passes() > before + 1, "it waited for more than what was left of a pass");
    assert!(is_long(left()), "{:?}", left());

    set(&host, "run", "2").unwrap();
    let end = std::time::Instant::now() + PATIENCE;
    while left().is_some() {
        assert!(std::time::Instant::now() < end, "{:?}", host.stats());
    }
    assert_eq!(host.stats().unwrap().pages_shared, 0);

    let before = passes();
    set(&host, "run", "1").unwrap();
    wait_for_passes(before + 1);
    assert!(is_long(left()), "{:?}", left());
    set(&host, "sleep_millisecs", "0").unwrap();
    wait_for_passes(passes() + 5);
}

#[test]
fn statistics_are_never_older_than_what_was_asked_for() {
    let host = start(Duration::ZERO, Knobs::default());
    let stats = || host.stats().unwrap();
    assert_eq!(stats().vms.len(), 0);
    attach_twins(&host);
    assert_eq!(stats().vms.len(), 2);
    assert!(host.settle(PATIENCE).unwrap().settled);
    let settled = stats();
    assert_eq!(settled.pages_sharing, PAGES);
    set(&host, "run", "0").unwrap();
    assert_eq!(stats().knobs.run, Run::Stop);
    host.compact(CompactScope::All).unwrap();
    assert_eq!(stats().events.moves, settled.events.moves + 2 * PAGES);
    host.set_mode(VmId(1), DedupMode::Off).unwrap();
    assert_eq!(stats().vms[1].mode, "off");
    host.detach_and_discard(VmId(0));
    assert_eq!(stats().vms.len(), 1);
}

#[test]
fn vms_that_are_not_folded_are_counted_with_the_memory_that_they_take() {
    let host = start(FOR_EVER, Knobs { run: Run::Stop, ..Knobs::default() });
    let rams = [DedupMode::Off, DedupMode::On, DedupMode::Off].map(|mode| {
        let ram = Arc::new(GuestRam::new(PAGES * 4096).unwrap());
        for page in 0..PAGES / 2 {
            ram.memory().write_obj(page + 1, GuestAddress(page * 4096)).unwrap();
        }
        (ram, mode)
    });
    for (vm, (ram, mode)) in (0..).zip(&rams) {
        if *mode == DedupMode::Off {
            host.leave_unfolded(VmId(vm), ram).unwrap();
        } else {
            host.attach(VmId(vm), ram, Box::new(Unchanging), *mode).unwrap();
        }
    }
    let stats = host.stats().unwrap();
    let half = PAGES / 2 * 4096;
    let seen: Vec<_> = stats.vms.iter().map(|vm| (vm.id, vm.pages, vm.private_bytes)).collect();
    assert_eq!(seen, [0, 1, 2].map(|id| (id, PAGES, Some(half))), "{stats:#?}");
    assert_eq!(stats.resident_bytes, Some(3 * half));
    assert_eq!((stats.vms[0].mode.as_str(), stats.vms[1].mode.as_str()), ("off", "on"));

    // One that is folded later is counted once, and one that is gone is not.
    host.attach(VmId(0), &rams[0].0, Box::new(Unchanging), DedupMode::On).unwrap();
    host.detach_and_discard(VmId(2));
    let stats = host.stats().unwrap();
    assert_eq!((stats.vms.len(), stats.resident_bytes), (2, Some(2 * half)), "{stats:#?}");
}

#[test]
fn clients_that_ask_all_the_time_are_answered_from_one_count() {
    let host = start(FOR_EVER, Knobs::default());
    attach_twins(&host);
    let began = std::time::Instant::now();
    let mut counts: Vec<u32> = (1..=1000)
        .map(|pages_to_scan| {
            // Behind the runner's back, so that each count is told from the others.
            let change = move |runner: &mut Runner| {
                let knobs = Knobs { pages_to_scan, ..runner.engine.knobs() };
                runner.engine.set_knobs(knobs)
            };
            host.ask(change).unwrap().unwrap();
            host.stats().unwrap().knobs.pages_to_scan
        })
        .collect();
    counts.dedup();
    let at_most = began.elapsed().as_millis() / 50 + 1;
    assert!(counts.len() as u128 <= at_most, "{} counts, not {at_most}", counts.len());
}

#[test]
fn switching_off_is_not_paced_by_the_scan_and_says_when_it_is_done() {
    let host = start(Duration::from_millis(1), Knobs::default());
    attach_twins(&host);
    assert!(host.settle(PATIENCE).unwrap().settled);
    for (run, vm) in [("1", 0), ("0", 1)] {
        set(&host, "sleep_millisecs", "36000000").unwrap();
        set(&host, "pages_to_scan", "1").unwrap();
        set(&host, "run", run).unwrap();
        let left = host.ask(move |runner| {
            runner.set_mode(VmId(vm), DedupMode::Off).unwrap();
            runner.engine.unmerging_pages(VmId(vm))
        });
        assert_eq!(left, Ok(Some(PAGES)), "nothing is done by the answer itself");
        let end = std::time::Instant::now() + PATIENCE;
        while host.unmerging_pages(VmId(vm)).unwrap() != Some(0) {
            assert!(std::time::Instant::now() < end, "{:?}", host.stats());
        }
        assert_eq!(host.stats().unwrap().vms[vm as usize].merging_pages, 0);
    }
    assert_eq!(host.unmerging_pages(VmId(7)), Ok(None));
}

#[test]
fn what_is_written_while_folding_is_stopped_is_found_by_itself() {
    let host = start_restless(Knobs::default());
    let rams = attach_twins(&host);
    assert!(host.settle(PATIENCE).unwrap().settled);
    set(&host, "run", "0").unwrap();
    for ram in &rams {
        for page in 0..PAGES {
            ram.memory().write_obj(page + 1000, GuestAddress(page * 4096)).unwrap();
        }
    }
    let end = std::time::Instant::now() + PATIENCE;
    while host.stats().unwrap().pages_shared > 0 {
        assert!(std::time::Instant::now() < end, "{:?}", host.stats());
    }
    // Nothing is left that could be written.
    while host.ask(|runner| runner.sleep_left()).unwrap().is_some() {
        assert!(std::time::Instant::now() < end, "{:?}", host.stats());
    }
}

#[test]
fn passes_that_have_become_rare_are_frequent_again_when_a_vm_has_something_to_do() {
    let config = DedupConfig {
        busy_interval: Duration::ZERO,
        idle_interval: FOR_EVER,
        ..DedupConfig::default()
    };
    let host = DedupHost::start(config).unwrap();
    let _memory = attach_twins(&host);
    let scans = || host.stats().unwrap().full_scans;
    let wait_for = |count| {
        let end = std::time::Instant::now() + PATIENCE;
        while scans() < count {
            assert!(std::time::Instant::now() < end, "{} scans", scans());
        }
    };
    wait_for(1);
    for _ in 0..3 {
        // Each time it is woken it makes some passes, and then none for ever.
        let before = scans();
        host.waker().wake();
        wait_for(before + 1);
    }
}

#[test]
fn a_vm_that_is_attached_is_visited_at_once_however_long_nothing_was_to_be_folded() {
    let config = DedupConfig {
        busy_interval: Duration::ZERO,
        idle_interval: FOR_EVER,
        ..DedupConfig::default()
    };
    let host = DedupHost::start(config).unwrap();
    let end = std::time::Instant::now() + PATIENCE;
    // The first comes when there has been nothing at all, the others when all has been folded.
    for id in 0..3 {
        while host.ask(|runner| runner.sleep_left()).unwrap().is_some_and(|left| left < PATIENCE) {
            assert!(std::time::Instant::now() < end, "{:?}", host.stats());
        }
        let ram = Arc::new(GuestRam::new(PAGES * 4096).unwrap());
        let before = host.stats().unwrap().full_scans;
        host.attach(VmId(id), &ram, Box::new(Unchanging), DedupMode::On).unwrap();
        while host.stats().unwrap().full_scans < before + 2 {
            assert!(std::time::Instant::now() < end, "VM {id}: {:?}", host.stats());
        }
    }
}

#[test]
fn requests_are_answered_while_a_vm_leaves() {
    const MANY: u64 = 16 * 2048;
    let host = start(FOR_EVER, Knobs::default());
    let ram = Arc::new(GuestRam::new(MANY * 4096).unwrap());
    host.attach(VmId(0), &ram, Box::new(Unchanging), DedupMode::On).unwrap();
    // Taken before the thread can have begun, and answered before it is done.
    let (answer, result) = channel();
    let (left, is_left) = channel();
    host.send(Box::new(move |runner| {
        runner.detach_and_discard(VmId(0), left);
        let _ = answer.send(runner.engine.is_anybody_leaving());
    }))
    .unwrap();
    assert_eq!(result.recv(), Ok(true));
    is_left.recv().unwrap();
    assert_eq!(host.ask(|runner| runner.engine.is_anybody_leaving()), Ok(false));
    // Not a request that is waited for by a pass that never comes.
    host.attach(VmId(0), &ram, Box::new(Unchanging), DedupMode::On).unwrap();
    host.detach_and_discard(VmId(0));
    host.detach_and_discard(VmId(7));
}

#[test]
fn the_thread_counts_what_nobody_has_counted_beside_it() {
    let host = start(FOR_EVER, Knobs::default());
    attach_twins(&host);
    let stats = host.ask(|runner| runner.count_stats(MemoryCount::default())).unwrap();
    assert!(stats.resident_bytes.is_some() && stats.vms.len() == 2, "{stats:#?}");
}
