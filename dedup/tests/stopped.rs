//! What happens to pages while nothing is folded, or without anybody saying so.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{TestVm, check_counters, config, engine, page, settle};
use pagefold_dedup::{
    AttachSpec, ChangeSource, DedupMode, Engine, EngineConfig, Knobs, LinearIndex, PAGE_SIZE,
    PageSet, Run, Step, VmId,
};

const PAGES: u32 = 1024;

/// Two VMs whose pages are shared, every other one with the other VM and every other one zero.
fn twins(engine: &mut Engine) -> [TestVm; 2] {
    let vms = [0, 1].map(|id| TestVm::attached(engine, id, PAGES));
    for vm in &vms {
        (0..PAGES).for_each(|number| vm.write(number as usize, &content(number)));
    }
    settle(engine);
    vms
}

fn content(number: u32) -> [u8; PAGE_SIZE] {
    if number.is_multiple_of(2) { page(number) } else { [0; PAGE_SIZE] }
}

#[test]
fn pages_that_are_written_while_folding_is_stopped_give_their_slots_back() {
    let mut engine = engine();
    let vms = twins(&mut engine);
    engine.set_knobs(Knobs { run: Run::Stop, ..engine.knobs() }).unwrap();
    for vm in &vms {
        (0..PAGES).for_each(|number| vm.write(number as usize, &page(PAGES + number)));
    }
    engine.pass();
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing, stats.pages_zero), (0, 0, 0));
    assert_eq!((stats.saved_bytes, stats.domains[0].store_bytes), (0, Some(0)));
    assert_eq!(stats.events.breaks, u64::from(PAGES));
    check_counters(&engine);
    assert_eq!(engine.stats().full_scans, stats.full_scans, "nothing is folded");

    engine.set_knobs(Knobs { run: Run::Fold, ..engine.knobs() }).unwrap();
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
}

#[test]
fn sharing_that_was_broken_without_anybody_saying_so_is_found() {
    let mut engine = engine();
    let vms = twins(&mut engine);
    // Not named by the change source.
    for number in 0..PAGES as usize {
        vms[0].memory.write(number * PAGE_SIZE, &page(PAGES + number as u32));
    }
    let wrong = engine.check_breaks().unwrap_err();
    assert!(format!("{wrong:?}").contains("counts as folded"), "{wrong:?}");
    let mut passes = 0;
    while engine.stats().vms[0].merging_pages + engine.stats().vms[0].zero_pages > 0 {
        engine.pass();
        passes += 1;
        assert!(passes <= 128, "{:?}", engine.stats());
    }
    assert!(passes > 1, "a part each pass");
    check_counters(&engine);
    engine.check_breaks().unwrap();
    let stats = engine.stats();
    assert_eq!((stats.pages_sharing, stats.pages_zero), (0, u64::from(PAGES) / 2));
}

#[test]
fn memory_that_appears_without_anybody_saying_so_is_found() {
    let mut engine = engine();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, PAGES));
    settle(&mut engine);
    for vm in &vms {
        for number in 0..PAGES as usize {
            vm.memory.write(number * PAGE_SIZE, &page(number as u32));
        }
    }
    let mut passes = 0;
    while engine.stats().pages_sharing < u64::from(PAGES) {
        engine.pass();
        passes += 1;
        assert!(passes <= 132, "{:?}", engine.stats());
    }
    check_counters(&engine);
}

// Taking in a change costs 0.1 µs: a step of one page that took in all of them would be long.
#[test]
fn a_step_takes_in_a_part_of_many_changes() {
    const MANY: u32 = 20_000;
    let knobs = Knobs { pages_to_scan: 1, ..Knobs::default() };
    let mut engine = Engine::new(EngineConfig { knobs, ..config() }).unwrap();
    let vm = TestVm::attached(&mut engine, 0, MANY);
    (0..MANY).for_each(|number| vm.write(number as usize, &page(number % (MANY / 2))));
    settle(&mut engine);
    (0..MANY as usize).for_each(|number| vm.poke(number, 9, 1));
    let mut before = engine.stats().events;
    let all = before.breaks + u64::from(MANY);
    let mut sleeps = 0;
    while engine.stats().events.breaks < all {
        sleeps += u32::from(!matches!(engine.step(), Step::Part));
        let events = engine.stats().events;
        assert!(events.breaks - before.breaks <= 1 << 10, "{} at once", events.breaks);
        before = events;
    }
    assert_eq!(sleeps, 4, "and it does not sleep so often that a guest is faster");
}

/// A source that names pages that are not there, or replaces the set that it is to add to.
struct Liar {
    is_replacing: bool,
}

impl ChangeSource for Liar {
    fn collect(&mut self, changed: &mut PageSet) -> io::Result<()> {
        let words = vec![u64::MAX; changed.page_count().div_ceil(64) as usize];
        changed.insert_words(LinearIndex(0), &words);
        if self.is_replacing {
            *changed = PageSet::full(1 << 20);
        }
        Ok(())
    }
}

#[test]
fn a_change_source_is_not_believed_about_pages_that_its_vm_does_not_have() {
    for is_replacing in [false, true] {
        let mut engine = engine();
        let vm = TestVm::new(0, 70);
        (0..70).for_each(|number| vm.write(number, &page(1)));
        let spec = AttachSpec {
            domain: "test".to_owned(),
            mode: DedupMode::On,
            memory: vm.memory.clone(),
            changes: Box::new(Liar { is_replacing }),
        };
        engine.attach(VmId(0), spec).unwrap();
        for _ in 0..4 {
            assert!(engine.pass().errors.is_empty());
        }
        engine.check().unwrap();
        let stats = engine.stats();
        assert_eq!(stats.vms[0].volatile_pages, 70, "all of it changes, as it says");
        assert!(stats.events.errors >= 4, "and it is said that it lies");
    }
}

/// What a source was asked, of memory all of which changes.
#[derive(Default)]
struct Asked {
    collected: u64,
    watched: Vec<bool>,
    is_deaf: bool,
}

struct Watched(Arc<Mutex<Asked>>);

impl ChangeSource for Watched {
    fn collect(&mut self, _changed: &mut PageSet) -> io::Result<()> {
        let mut asked = self.0.lock().unwrap();
        assert!(!asked.is_deaf, "it notices nothing");
        asked.collected += 1;
        Ok(())
    }

    fn watch(&mut self, is_watched: bool) -> io::Result<()> {
        let mut asked = self.0.lock().unwrap();
        asked.watched.push(is_watched);
        asked.is_deaf = !is_watched;
        Ok(())
    }
}

#[test]
fn nobody_looks_for_the_changes_of_a_vm_that_is_off() {
    let mut engine = engine();
    let asked = Arc::new(Mutex::new(Asked::default()));
    let off = TestVm::new(0, 64);
    let on = TestVm::attached(&mut engine, 1, 64);
    for vm in [&off, &on] {
        (0..64).for_each(|number| vm.write(number, &page(number as u32)));
    }
    let spec = AttachSpec {
        domain: "test".to_owned(),
        mode: DedupMode::On,
        memory: off.memory.clone(),
        changes: Box::new(Watched(asked.clone())),
    };
    engine.attach(off.id, spec).unwrap();
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 64);
    assert!(asked.lock().unwrap().watched.is_empty());

    engine.set_mode(off.id, DedupMode::Off).unwrap();
    engine.pass();
    assert_eq!(asked.lock().unwrap().watched, [false], "once it is unmerged");
    let collected = asked.lock().unwrap().collected;
    (0..64).for_each(|number| off.write(number, &page(100 + number as u32)));
    settle(&mut engine);
    engine.set_knobs(Knobs { run: Run::Stop, ..engine.knobs() }).unwrap();
    engine.pass();
    engine.set_knobs(Knobs { run: Run::Fold, ..engine.knobs() }).unwrap();
    assert_eq!(asked.lock().unwrap().collected, collected);

    (0..64).for_each(|number| on.write(number, &page(100 + number as u32)));
    engine.set_mode(off.id, DedupMode::On).unwrap();
    let scanned = engine.stats().vms[0].events.pages_scanned;
    engine.pass();
    assert_eq!(asked.lock().unwrap().watched, [false, true]);
    assert_eq!(
        engine.stats().vms[0].events.pages_scanned,
        scanned,
        "nothing is known to be unchanged"
    );
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 64);
}

#[test]
fn a_change_source_that_fails_does_not_keep_pages_from_being_unmerged() {
    let mut engine = engine();
    let vms = [0, 1].map(|id| TestVm::new(id, PAGES));
    let broken = Arc::new(AtomicBool::new(false));
    for vm in &vms {
        (0..PAGES).for_each(|number| vm.write(number as usize, &content(number)));
        let spec = AttachSpec {
            domain: "test".to_owned(),
            mode: DedupMode::On,
            memory: vm.memory.clone(),
            changes: Box::new(Breaking(broken.clone())),
        };
        engine.attach(vm.id, spec).unwrap();
    }
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES) / 2);
    broken.store(true, Ordering::Relaxed);
    engine.set_knobs(Knobs { run: Run::Unmerge, ..engine.knobs() }).unwrap();
    let report = engine.pass();
    assert!(engine.is_unmerged(), "{report:?}");
    for vm in &vms {
        (0..PAGES).for_each(|number| assert_eq!(vm.read(number as usize), content(number)));
    }
    check_counters(&engine);
}

/// Names no page, until it fails.
struct Breaking(Arc<AtomicBool>);

impl ChangeSource for Breaking {
    fn collect(&mut self, _: &mut PageSet) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }
}

// Pages that were about to be tried again were in the broker's trees still when the VM had none there any more.
#[test]
fn whatever_was_about_to_be_tried_again_the_trees_are_empty_when_everything_is_unmerged() {
    const HALF: u32 = 1000;
    for steps in 1..12 {
        let knobs = Knobs { pages_to_scan: 100, ..Knobs::default() };
        let config = EngineConfig { max_mappings: Some(8), knobs, ..config() };
        let mut engine = Engine::new(config).unwrap();
        let first = [0, 1].map(|id| TestVm::attached(&mut engine, id, 3));
        for (vm, number) in first.iter().flat_map(|vm| [0, 2].map(move |number| (vm, number))) {
            vm.write(number, &page(HALF + number as u32));
        }
        settle(&mut engine);
        let vm = TestVm::attached(&mut engine, 2, 2 * HALF);
        (0..2 * HALF).for_each(|number| vm.write(number as usize, &page(number % HALF)));
        settle(&mut engine);
        assert_eq!(engine.stats().vms[2].deferred_pages, 2 * u64::from(HALF));
        for vm in &first {
            engine.detach(vm.id).unwrap();
        }
        (0..steps).for_each(|_| drop(engine.step()));
        engine.set_knobs(Knobs { run: Run::Unmerge, ..engine.knobs() }).unwrap();
        while engine.is_unmerging() {
            engine.step();
        }
        let others = Knobs { max_page_sharing: 2, merge_across_nodes: false, ..engine.knobs() };
        engine.set_knobs(others).unwrap_or_else(|error| panic!("after {steps} steps: {error}"));
        engine.check().unwrap();
    }
}
