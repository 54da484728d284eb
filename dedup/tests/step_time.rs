//! A step ends when its time is over, however slow the machine is: after one piece of work if it has none.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use std::time::Duration;

use common::{TestVm, check_counters, page, settle, twins};
use pagefold_dedup::{DedupMode, Engine, EngineConfig, Run, Step, StepWork, VmId};

const PAGES: u32 = 6000;

fn engine(step_time: Duration) -> Engine {
    Engine::new(EngineConfig { step_time: Some(step_time), ..EngineConfig::default() }).unwrap()
}

/// Makes steps until a pass is over; says how many, and what the most is that one handled of everything.
fn pass(engine: &mut Engine) -> (u32, StepWork) {
    let mut most = StepWork::default();
    for steps in 1.. {
        let step = engine.step();
        let work = engine.last_step();
        // A piece reads pages, or offers them, or maps them; what it was at may be the end of another.
        most.read_pages = most.read_pages.max(work.read_pages);
        most.offered_pages = most.offered_pages.max(work.offered_pages);
        most.mapped_pages = most.mapped_pages.max(work.mapped_pages);
        most.noted_pages = most.noted_pages.max(work.noted_pages);
        assert!(work.read_pages == 0 || work.offered_pages == 0, "two pieces: {work:?}");
        if matches!(step, Step::Done(_) | Step::Stopped) {
            return (steps, most);
        }
    }
    unreachable!("there is no end of numbers")
}

fn set_run(engine: &mut Engine, run: Run) {
    let mut knobs = engine.knobs();
    knobs.run = run;
    engine.set_knobs(knobs).unwrap();
}

/// That no more was in a step than is in one piece.
fn check(most: &StepWork) {
    assert!(most.read_pages <= 2048 && most.offered_pages <= 192, "{most:?}");
    assert!(most.mapped_pages <= 320 && most.noted_pages <= 256, "{most:?}");
}

/// That the bytes are those that were written, however they are kept.
fn verify(vms: &[TestVm], written: u32) {
    for vm in vms {
        for number in 0..PAGES {
            let mut expected = page(number);
            expected[9] = if number < written { 1 } else { expected[9] };
            assert_eq!(vm.read(number as usize), expected, "page {number} of VM {}", vm.id);
        }
    }
}

#[test]
fn a_step_without_time_does_one_piece_of_its_work_and_all_of_it_is_done() {
    let mut engine = engine(Duration::ZERO);
    let vms = twins(&mut engine, PAGES);
    for _ in 0..3 {
        check(&pass(&mut engine).1);
    }
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
    // All are broken, found so while nothing is folded, and folded again.
    for (vm, number) in vms.iter().flat_map(|vm| (0..PAGES).map(move |number| (vm, number))) {
        vm.poke(number as usize, 9, 1);
    }
    set_run(&mut engine, Run::Stop);
    check(&pass(&mut engine).1);
    assert_eq!(engine.stats().pages_sharing, 0);
    set_run(&mut engine, Run::Fold);
    for _ in 0..3 {
        check(&pass(&mut engine).1);
    }
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
    check_counters(&engine);
    // One VM is switched off, the other unmerged with all.
    engine.set_mode(vms[0].id, DedupMode::Off).unwrap();
    check(&pass(&mut engine).1);
    set_run(&mut engine, Run::Unmerge);
    while engine.is_unmerging() {
        check(&pass(&mut engine).1);
    }
    assert_eq!(engine.stats().pages_shared, 0);
    check_counters(&engine);
    verify(&vms, PAGES);
}

#[test]
fn settling_that_begins_within_a_pass_finds_what_the_pass_has_gone_by() {
    let mut engine = engine(Duration::ZERO);
    let vms = twins(&mut engine, 64);
    settle(&mut engine);
    let begin_pass = |engine: &mut Engine| {
        while !engine.is_in_pass() {
            engine.step();
        }
        (0..2).for_each(|_| drop(engine.step()));
        assert!(engine.is_in_pass());
    };
    for vm in &vms {
        (0..64).for_each(|number| vm.write(number as usize, &page(1000 + number)));
        begin_pass(&mut engine);
    }
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 64);
    begin_pass(&mut engine);
    let third = TestVm::attached(&mut engine, 2, 64);
    (0..64).for_each(|number| third.write(number as usize, &page(1000 + number)));
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 128);
}

#[test]
fn more_time_makes_fewer_steps() {
    let steps = [Duration::ZERO, Duration::MAX].map(|time| {
        let mut engine = engine(time);
        let vms = twins(&mut engine, PAGES);
        engine.pass();
        engine.step();
        let mut steps = 1;
        while engine.is_in_pass() {
            engine.step();
            steps += 1;
        }
        assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
        verify(&vms, 0);
        steps
    });
    assert!(steps[0] > 2 * steps[1], "{steps:?}");
}

#[test]
fn a_pass_begins_and_ends_in_one_domain_after_the_other() {
    const DOMAINS: u32 = 5;
    let mut engine = engine(Duration::from_nanos(1));
    let vms: Vec<TestVm> = (0..DOMAINS).map(|id| TestVm::new(id, 8)).collect();
    for (number, vm) in vms.iter().enumerate() {
        vm.attach(&mut engine, &format!("domain {number}"), DedupMode::On);
    }
    // Each is begun, has its visits ended, and is ended.
    let (steps, _) = pass(&mut engine);
    assert!(steps >= 3 * DOMAINS, "{steps} steps");
    // One that comes meanwhile, and one that goes, are no harm.
    engine.step();
    engine.detach(VmId(1)).unwrap();
    TestVm::new(9, 8).attach(&mut engine, "another", DedupMode::On);
    pass(&mut engine);
    settle(&mut engine);
    check_counters(&engine);
}
