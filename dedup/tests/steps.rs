//! Steps have a bound, whatever there is to do: each counts what it handles.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]
#![allow(clippy::cast_possible_truncation, reason = "page numbers are small")]

mod common;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use common::{TestVm, config, engine, page, settle};
use pagefold_dedup::internals::{Broker, Directive, Extent, LocalBroker, Offer, Outcome};
use pagefold_dedup::{
    AttachSpec, ChangeSource, CloneError, DedupMode, Engine, EngineConfig, Knobs, LinearIndex,
    PAGE_SIZE, PageSet, Run, Step, StepWork, Unchanging, VmId,
};

/// Pages of a VM: 4, 16 and 64 GiB.
const SIZES: [u32; 3] = [1 << 20, 1 << 22, 1 << 24];

/// Pages that are there: so many from the first on, and so many that are spread over the VM.
const DENSE: u32 = 6000;
const SPREAD: u32 = 3000;

/// That no step did more than any step may.
fn check(step: &StepWork) {
    let StepWork { read_pages, mapped_runs, mapped_pages, filled_pages, .. } = *step;
    assert!(read_pages <= 4 * 4096 && step.offered_pages <= 2 * 4096, "{step:?}");
    assert!(step.registered_mappings <= 9 * 512, "{step:?}");
    assert!(mapped_runs <= 512 && mapped_pages <= 2048 && filled_pages <= 1024, "{step:?}");
    assert!(step.noted_pages <= 1024, "{step:?}");
    assert!(step.searched_pages <= 1 << 19, "{step:?}");
    assert!(step.words <= 1 << 21, "{step:?}");
    assert!(step.tried_runs <= 3 << 14, "{step:?}");
    assert!(step.trimmed_items <= 3 << 15, "{step:?}");
    assert!(step.visits <= 512 && step.directed_pages <= 4096, "{step:?}");
}

/// Makes steps until a pass is over, and says how many.
fn pass(engine: &mut Engine) -> u32 {
    for steps in 1.. {
        let step = engine.step();
        check(&engine.last_step());
        if matches!(step, Step::Done(_) | Step::Stopped) {
            return steps;
        }
    }
    unreachable!("there is no end of numbers")
}

fn there(page_count: u32) -> BTreeSet<u32> {
    let spread = (1..=SPREAD).map(move |number| (page_count - 1) / SPREAD * number);
    (0..DENSE).chain(spread).collect()
}

fn set(engine: &mut Engine, change: impl FnOnce(&mut Knobs)) {
    let mut knobs = engine.knobs();
    change(&mut knobs);
    engine.set_knobs(knobs).unwrap();
}

#[test]
fn every_step_is_bounded_whatever_the_size_of_a_vm_and_the_pace() {
    for page_count in SIZES {
        let mut engine = engine();
        set(&mut engine, |knobs| knobs.pages_to_scan = u32::MAX);
        let there = there(page_count);
        let all = there.len() as u64;
        let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, page_count));
        for (vm, &number) in vms.iter().flat_map(|vm| there.iter().map(move |page| (vm, page))) {
            vm.write(number as usize, &page(number));
        }
        pass(&mut engine);
        let steps = pass(&mut engine);
        assert!(steps > 10, "{steps} steps");
        assert_eq!(engine.stats().pages_sharing, all);
        // All are broken at once.
        for (vm, &number) in vms.iter().flat_map(|vm| there.iter().map(move |page| (vm, page))) {
            vm.poke(number as usize, 9, 1);
        }
        pass(&mut engine);
        assert_eq!(engine.stats().pages_sharing, 0);
        pass(&mut engine);
        assert_eq!(engine.stats().pages_sharing, all);
        // And those of one while nothing is folded, and of the other unmerged.
        set(&mut engine, |knobs| knobs.run = Run::Stop);
        for &number in &there {
            vms[0].poke(number as usize, 8, 1);
        }
        pass(&mut engine);
        engine.set_mode(vms[1].id, DedupMode::Off).unwrap();
        pass(&mut engine);
        assert_eq!(engine.stats().pages_sharing, 0);
        engine.check().unwrap();
    }
}

#[test]
fn it_is_time_to_rest_when_pages_to_scan_have_been_looked_at_and_not_before() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 1 << 16);
    for number in 0..1 << 16 {
        vm.write(number as usize, &page(number));
    }
    pass(&mut engine);
    set(&mut engine, |knobs| knobs.pages_to_scan = 30_000);
    let scanned = |engine: &Engine| engine.stats().events.pages_scanned;
    let before = scanned(&engine);
    let (mut parts, mut rests) = (0, Vec::new());
    loop {
        match engine.step() {
            Step::Part => parts += 1,
            Step::More => rests.push(scanned(&engine) - before),
            Step::Done(_) | Step::Stopped => break,
        }
    }
    assert_eq!(rests.len(), 2, "{rests:?}");
    for (rest, number) in rests.iter().zip(1..) {
        assert!(rest.abs_diff(number * 30_000) <= 4096, "{rests:?}");
    }
    assert!(parts >= 4, "{parts} parts");
}

#[test]
fn merges_that_lie_far_apart_leave_the_mappings_between_them_alone() {
    const EXTENTS: usize = 3000;
    let mut engine = engine();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, 2 * EXTENTS as u32));
    for (vm, number) in vms.iter().flat_map(|vm| (1..EXTENTS - 1).map(move |page| (vm, page))) {
        vm.write(2 * number, &page(number as u32));
    }
    settle(&mut engine);
    for (vm, number) in vms.iter().flat_map(|vm| [0, EXTENTS - 1].map(|page| (vm, page))) {
        vm.write(2 * number, &page(number as u32));
    }
    let (mut registered, before) = (0, engine.stats().events.merges);
    while engine.stats().events.merges < before + 4 {
        engine.step();
        registered += engine.last_step().registered_mappings;
    }
    assert!(registered <= 16, "{registered} mappings for 4 pages");
    engine.check().unwrap();
}

/// A VM of so many pages each of which another VM has, too.
fn two_of(engine: &mut Engine, page_count: u32) -> [TestVm; 2] {
    let vms = [0, 1].map(|id| TestVm::attached(engine, id, page_count));
    for (vm, number) in vms.iter().flat_map(|vm| (0..page_count).map(move |page| (vm, page))) {
        vm.write(number as usize, &page(number));
    }
    settle(engine);
    assert_eq!(engine.stats().pages_sharing, u64::from(page_count));
    vms
}

#[test]
fn a_vm_is_detached_in_steps_and_keeps_its_bytes_while_others_are_folded() {
    const PAGES: u32 = 10_000;
    let mut engine = engine();
    let [one, other] = two_of(&mut engine, PAGES);
    let mut detaching = engine.begin_detach(one.id).unwrap();
    let (mut steps, mut shared) = (0, u64::from(PAGES));
    while engine.detach_step(&mut detaching).is_none() {
        check(&engine.last_step());
        // Its guest goes on writing, and passes are made.
        one.poke(steps as usize * 97, 9, 1);
        engine.step();
        check(&engine.last_step());
        let now = engine.stats().vms[0].merging_pages;
        assert!(now <= shared, "nothing of it is folded again");
        (steps, shared) = (steps + 1, now);
    }
    assert!((2..100).contains(&steps), "{steps} steps");
    assert_eq!(engine.vms().collect::<Vec<_>>(), [other.id]);
    settle(&mut engine);
    for number in 0..PAGES {
        let mut expected = page(number);
        assert!(other.read(number as usize) == expected);
        if number % 97 == 0 && number / 97 < steps {
            expected[9] = 1;
        }
        assert!(one.read(number as usize) == expected, "page {number}");
    }
}

/// A VM, each page of which has an item, and another, so that their domain stays.
fn with_items(engine: &mut Engine, page_count: u32) -> [TestVm; 2] {
    let vms = [(0, page_count), (1, 1)].map(|(id, count)| TestVm::attached(engine, id, count));
    for number in 0..page_count {
        vms[0].write(number as usize, &page(number));
    }
    settle(engine);
    vms
}

fn metadata_bytes(engine: &Engine) -> u64 {
    engine.stats().domains[0].metadata_bytes
}

#[test]
fn a_vm_that_has_ended_gives_up_its_items_as_it_leaves_and_not_all_at_the_end() {
    const PAGES: u32 = 1 << 16;
    let mut engine = engine();
    let [vm, _other] = with_items(&mut engine, PAGES);
    let items = u64::from(PAGES) * 12;
    let mut before = metadata_bytes(&engine);
    let all = before;
    let leave = engine.begin_detach_and_discard(vm.id).unwrap();
    while engine.is_leaving(leave) {
        assert!(engine.leave_step());
        check(&engine.last_step());
        let now = metadata_bytes(&engine);
        assert!(before.saturating_sub(now) < items / 4, "{before} to {now}");
        before = now;
    }
    assert!(all - before >= items, "{all} to {before}");
}

#[test]
fn a_vm_that_is_detached_gives_up_its_items_some_at_a_time_and_not_all_at_the_end() {
    const PAGES: u32 = 5 << 16;
    let mut engine = engine();
    let [vm, _other] = with_items(&mut engine, PAGES);
    let items = u64::from(PAGES) * 12;
    let mut before = metadata_bytes(&engine);
    let all = before;
    let mut detaching = engine.begin_detach(vm.id).unwrap();
    loop {
        let result = engine.detach_step(&mut detaching);
        check(&engine.last_step());
        let now = metadata_bytes(&engine);
        assert!(before.saturating_sub(now) < items / 4, "{before} to {now}");
        before = now;
        if let Some(result) = result {
            result.unwrap();
            break;
        }
    }
    assert!(all - before >= items, "{all} to {before}");
    engine.check().unwrap();
}

// Each page of a run that had been deferred was reported in one step.
#[test]
fn pages_that_had_been_deferred_are_tried_again_in_bounded_steps() {
    const PAGES: u32 = 10_000;
    let config = EngineConfig { max_mappings: Some(8), ..config() };
    let mut engine = Engine::new(config).unwrap();
    let first = [0, 1].map(|id| TestVm::attached(&mut engine, id, 3));
    for vm in &first {
        // Two pages that both have, and between them one that no other has.
        for (number, content) in [(0, 1), (1, 2 + vm.id.0), (2, 4)] {
            vm.write(number, &page(PAGES + content));
        }
    }
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 2, "{:?}", engine.stats());
    let vms = [2, 3].map(|id| TestVm::attached(&mut engine, id, PAGES));
    for (vm, number) in vms.iter().flat_map(|vm| (0..PAGES).map(move |number| (vm, number))) {
        vm.write(number as usize, &page(number));
    }
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!([2, 3].map(|vm: usize| stats.vms[vm].deferred_pages), [PAGES.into(); 2]);
    for vm in &first {
        engine.detach(vm.id).unwrap();
    }
    // Some hundred a pass, each of which goes on where the one before ended: all are one run.
    for _ in 0..100 {
        pass(&mut engine);
    }
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES), "{:?}", engine.stats());
    engine.check().unwrap();
}

// Each pass tried a few hundred: what there were mappings for took hundreds of passes.
#[test]
fn however_many_pages_had_been_deferred_are_tried_again_by_a_few_passes() {
    const PAGES: u32 = 60_000;
    let config = EngineConfig { max_mappings: Some(8), ..config() };
    let mut engine = Engine::new(config).unwrap();
    let first = [0, 1].map(|id| TestVm::attached(&mut engine, id, 3));
    for (vm, number) in first.iter().flat_map(|vm| [0, 2].map(move |number| (vm, number))) {
        vm.write(number, &page(PAGES + number as u32));
    }
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 2, "{:?}", engine.stats());
    let vms = [2, 3].map(|id| TestVm::attached(&mut engine, id, PAGES));
    for (vm, number) in vms.iter().flat_map(|vm| (0..PAGES).map(move |number| (vm, number))) {
        vm.write(number as usize, &page(number));
    }
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!([2, 3].map(|vm: usize| stats.vms[vm].deferred_pages), [PAGES.into(); 2]);
    for vm in &first {
        engine.detach(vm.id).unwrap();
    }
    for _ in 0..12 {
        pass(&mut engine);
    }
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES), "{:?}", engine.stats());
    engine.check().unwrap();
}

#[test]
fn a_clone_is_made_in_steps_and_is_no_vm_before_it_is_whole() {
    const PAGES: u32 = 10_000;
    let mut engine = engine();
    let [parent, other] = two_of(&mut engine, PAGES);
    let child = TestVm::new(2, PAGES);
    child.write(77, &page(1));
    parent.write(78, &[0; PAGE_SIZE]);
    settle(&mut engine);
    engine.set_mergeable(parent.id, LinearIndex(5), 3, false).unwrap();
    let begin = |engine: &mut Engine| {
        engine.begin_clone(parent.id, child.id, child.memory.clone(), Box::new(Unchanging)).unwrap()
    };
    let mut cloning = begin(&mut engine);
    let mut steps = 1;
    while !engine.clone_step(&mut cloning).unwrap() {
        assert!(!engine.vms().any(|vm| vm == child.id));
        engine.step();
        steps += 1;
    }
    assert!((35..=42).contains(&steps), "{steps} steps");
    assert!(engine.clone_step(&mut cloning).unwrap(), "and it stays so");
    settle(&mut engine);
    for number in 0..PAGES as usize {
        assert!(child.read(number) == parent.read(number), "page {number}");
    }
    let stats = engine.stats();
    assert_eq!(
        stats.vms[2].merging_pages,
        u64::from(PAGES) - 4,
        "three are opted out, one is zero"
    );
    // What becomes of the parent meanwhile is noticed.
    engine.detach_and_discard(child.id);
    let mut cloning = begin(&mut engine);
    assert!(!engine.clone_step(&mut cloning).unwrap());
    engine.detach(parent.id).unwrap();
    parent.attach(&mut engine, "test", DedupMode::On);
    let gone = engine.clone_step(&mut cloning);
    assert!(matches!(gone, Err(CloneError::NoParent(vm)) if vm == parent.id));
    assert_eq!(engine.vms().collect::<Vec<_>>(), [parent.id, other.id]);
}

/// A source that answers for a part at a time, and fails when it is told to.
struct InParts {
    written: Arc<Mutex<PageSet>>,
    fails_at: Arc<AtomicU32>,
    longest: Arc<AtomicU32>,
}

impl ChangeSource for InParts {
    fn collect(&mut self, _changed: &mut PageSet) -> io::Result<()> {
        Err(io::Error::other("asked for everything at once"))
    }

    fn collect_part(
        &mut self,
        within: Range<LinearIndex>,
        changed: &mut PageSet,
    ) -> io::Result<LinearIndex> {
        if within.contains(&LinearIndex(self.fails_at.load(Ordering::Relaxed))) {
            return Err(io::Error::other("told to fail"));
        }
        let mut written = self.written.lock().unwrap();
        changed.union_within(&written, within.clone());
        written.remove_range(within.clone());
        self.longest.fetch_max(within.end.0 - within.start.0, Ordering::Relaxed);
        Ok(within.end)
    }
}

#[test]
fn changes_are_asked_for_stretch_by_stretch_and_none_is_lost_when_one_of_them_fails() {
    const PAGES: u32 = 1 << 20;
    let mut engine = engine();
    let written = Arc::new(Mutex::new(PageSet::new(PAGES)));
    let fails_at = Arc::new(AtomicU32::new(u32::MAX));
    let longest = Arc::new(AtomicU32::new(0));
    let vm = TestVm::new(0, PAGES);
    let changes = InParts {
        written: Arc::clone(&written),
        fails_at: Arc::clone(&fails_at),
        longest: Arc::clone(&longest),
    };
    let spec = AttachSpec {
        domain: "test".to_owned(),
        mode: DedupMode::On,
        memory: vm.memory.clone(),
        changes: Box::new(changes),
    };
    engine.attach(vm.id, spec).unwrap();
    let write = |number: u32, bytes: &[u8; PAGE_SIZE]| {
        vm.memory.write(number as usize * PAGE_SIZE, bytes);
        written.lock().unwrap().insert(LinearIndex(number));
    };
    let spread: Vec<u32> = (0..PAGES).step_by(PAGES as usize / 64).collect();
    for &number in &spread {
        write(number, &page(7));
    }
    settle(&mut engine);
    let sharing = |engine: &Engine| engine.stats().pages_shared + engine.stats().pages_sharing;
    assert_eq!(sharing(&engine), 64);
    // All are written, and the source fails in the middle, and further on the next time.
    for &number in &spread {
        write(number, &page(number));
    }
    for (failing, left) in [(PAGES / 2, 32), (PAGES - 1, 16)] {
        fails_at.store(failing, Ordering::Relaxed);
        assert_eq!(engine.pass().errors.len(), 1);
        assert_eq!(sharing(&engine), left);
    }
    fails_at.store(u32::MAX, Ordering::Relaxed);
    settle(&mut engine);
    assert_eq!(sharing(&engine), 0);
    assert!(longest.load(Ordering::Relaxed) <= 1 << 18);
}

#[test]
fn what_is_at_rest_counts_as_work_wherever_a_pass_is_when_settling_begins() {
    const PAGES: u32 = 1 << 20;
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, PAGES);
    let at_rest = [0, PAGES as usize - 1];
    for &number in &at_rest {
        vm.write(number, &page(1));
    }
    engine.pass();
    for &number in &at_rest {
        vm.write(number, &page(2));
    }
    set(&mut engine, |knobs| knobs.pages_to_scan = 1);
    engine.step();
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 1);
}

#[test]
fn going_through_what_was_deferred_counts_as_work_and_is_shared_out_among_steps() {
    const VMS: u32 = 6;
    /// Runs of one VM that a pass goes through.
    const RUNS: u32 = 1 << 14;
    let config = EngineConfig { max_mappings: Some(400), ..config() };
    let mut engine = Engine::new(config).unwrap();
    set(&mut engine, |knobs| knobs.pages_to_scan = u32::MAX);
    let vms: Vec<TestVm> = (0..VMS).map(|id| TestVm::attached(&mut engine, id, 2 * RUNS)).collect();
    for (vm, number) in vms.iter().flat_map(|vm| (0..RUNS).map(move |pair| (vm, 2 * pair))) {
        vm.write(number as usize, &page(number));
    }
    // They are unchanged since the last pass, and nearly all are deferred; the next pass looks for what can be tried again.
    (0..2).for_each(|_| _ = pass(&mut engine));
    let mut tried = Vec::new();
    while !matches!(engine.step(), Step::Done(_)) {
        check(&engine.last_step());
        tried.push(engine.last_step().tried_runs);
    }
    let all: u64 = tried.iter().sum();
    assert!(all > 3 * u64::from(RUNS), "{all} runs, more than a step may go through");
    assert!(tried.iter().filter(|&&runs| runs > 0).count() > 1, "{tried:?}");
    engine.check().unwrap();
}

/// A domain in which this many pages of one content share two each.
fn pairs_of_one_content(page_count: u32) -> LocalBroker {
    let mut broker = LocalBroker::new(page_count, 2).unwrap();
    let vm = VmId(0);
    broker.register(vm, page_count).unwrap();
    let bytes = page(1);
    let fingerprint = broker.secret().fingerprint(&bytes);
    let pages = (0..page_count).map(LinearIndex);
    let offers: Vec<Offer> = pages.map(|linear| Offer { linear, fingerprint }).collect();
    broker.offer(vm, &offers, &mut Vec::new()).unwrap();
    loop {
        let mut directives = Vec::new();
        broker.directives(vm, 4096, &mut directives).unwrap();
        if directives.is_empty() {
            return broker;
        }
        for directive in directives {
            let (linear, slot) = match directive {
                Directive::Create { linear, slot, .. } => {
                    broker.fill(vm, slot, &bytes, &mut Vec::new()).unwrap();
                    (linear, slot)
                }
                Directive::Merge { linear, slot, .. } => (linear, slot),
                other => panic!("{other:?}"),
            };
            let run = Extent { linear, slot, page_count: 1 };
            broker.report(vm, &[Outcome::Merged(run)]).unwrap();
        }
    }
}

#[test]
fn dups_that_fit_together_are_joined_some_thousand_at_a_time() {
    let page_count = 1 << 16;
    let mut broker = pairs_of_one_content(page_count);
    assert_eq!(broker.node_count(), page_count as usize / 2);
    let left: Vec<Outcome> =
        (0..page_count / 2).map(|pair| Outcome::Left { linear: LinearIndex(2 * pair) }).collect();
    broker.report(VmId(0), &left).unwrap();
    broker.check().unwrap();
    let most = (1 << 13) / 2;
    let joined: Vec<usize> = (0..16).map(|_| broker.join_dups()).collect();
    assert!(joined.iter().all(|&pairs| pairs <= most), "{joined:?}");
    assert!(joined.iter().sum::<usize>() > page_count as usize / 4 * 9 / 10, "{joined:?}");
    broker.check().unwrap();
}

// Each page that was unmerged went through all ranges behind it: 32,768 took 17 s, in steps of 300 ms.
#[test]
fn ranges_that_are_opted_out_one_by_one_are_gone_through_once() {
    const PAGES: u32 = 1 << 14;
    let mut engine = engine();
    let [vm, other] = two_of(&mut engine, PAGES);
    for number in (0..PAGES).step_by(2) {
        engine.set_mergeable(vm.id, LinearIndex(number), 1, false).unwrap();
    }
    let mut tried = 0;
    while engine.is_unmerging() {
        engine.step();
        check(&engine.last_step());
        tried += engine.last_step().tried_runs;
    }
    assert!(tried <= 2 * u64::from(PAGES), "{tried} ranges were gone through");
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES / 2));
    for number in 0..PAGES {
        assert!(vm.read(number as usize) == other.read(number as usize), "page {number}");
    }
    engine.check().unwrap();
}

// 1,000 were one step of 8 ms, which counted nothing.
#[test]
fn vms_that_have_nothing_to_do_are_visited_in_many_steps() {
    const VMS: u32 = 1000;
    let mut engine = engine();
    set(&mut engine, |knobs| knobs.pages_to_scan = u32::MAX);
    let _vms: Vec<TestVm> = (0..VMS).map(|id| TestVm::attached(&mut engine, id, 16)).collect();
    pass(&mut engine);
    assert!(pass(&mut engine) >= 5);
    set(&mut engine, |knobs| knobs.run = Run::Stop);
    assert!(pass(&mut engine) >= 5);
}

// What was deferred counted as nothing: 200,000 pages were one step of 191 ms.
#[test]
fn directives_for_which_there_are_no_mappings_count_as_work() {
    const PAGES: u32 = 30_000;
    let config = EngineConfig { max_mappings: Some(100), ..config() };
    let mut engine = Engine::new(config).unwrap();
    set(&mut engine, |knobs| knobs.pages_to_scan = u32::MAX);
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, PAGES));
    for number in 0..PAGES {
        vms[0].write(number as usize, &page(number));
        vms[1].write(number as usize, &page(number * 7919 % PAGES));
    }
    (0..3).for_each(|_| _ = pass(&mut engine));
    assert!(engine.stats().pages_sharing > 0);
    engine.check().unwrap();
}
