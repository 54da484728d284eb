//! The smart scan on real memory: pages that keep changing are passed over, and others are not.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use common::{TestVm, check_counters, engine, page, settle};
use pagefold_dedup::internals::{Broker, Directive, Extent, LocalBroker, Offer, Outcome};
use pagefold_dedup::{Engine, Knobs, LinearIndex, PAGE_SIZE, PageState, Step, VmId};

fn state(engine: &Engine, vm: &TestVm, number: usize) -> PageState {
    engine.find(vm.id, (number * PAGE_SIZE) as u64).unwrap().state
}

fn skipped(engine: &Engine) -> u64 {
    engine.stats().events.pages_skipped
}

/// Writes a page and leaves it unchanged for one pass, so many times.
fn keep_changing(engine: &mut Engine, vm: &TestVm, number: usize, times: u32) {
    for time in 0..times {
        vm.write(number, &page(1000 + time));
        engine.pass();
        engine.pass();
        engine.check().unwrap();
    }
}

#[test]
fn a_page_that_keeps_changing_is_passed_over_ever_longer_and_the_others_are_not() {
    let mut engine = engine();
    let vm = TestVm::attached(&mut engine, 0, 8);
    (0..4).for_each(|number| vm.write(number, &page(number as u32 / 2)));
    settle(&mut engine);
    let before = engine.stats().events;
    assert_eq!(before.pages_skipped, 0);
    keep_changing(&mut engine, &vm, 6, 32);
    let after = engine.stats().events;
    // Looked at in rounds 0, 1, 2, 3, 5, 8, 13, 22 and 31, and passed over in all others.
    assert_eq!(after.pages_skipped, 32 - 9);
    assert_eq!(after.pages_scanned - before.pages_scanned, 9);
    assert_eq!(
        (0..4).filter(|&number| state(&engine, &vm, number) == PageState::Volatile).count(),
        0
    );

    let smart_scan = false;
    engine.set_knobs(Knobs { smart_scan, ..engine.knobs() }).unwrap();
    keep_changing(&mut engine, &vm, 6, 32);
    let all = engine.stats().events;
    assert_eq!(all.pages_skipped, after.pages_skipped);
    assert_eq!(all.pages_scanned - after.pages_scanned, 32);
}

// Its age must not be read out of what makes it a sharer: in an item, one overlays the other.
#[test]
fn a_page_that_was_shared_and_is_written_is_looked_at_once_it_rests_whatever_it_did_before() {
    let mut engine = engine();
    let (a, b) = (TestVm::attached(&mut engine, 0, 64), TestVm::attached(&mut engine, 1, 64));
    // Aged until it is passed over for as long as any, then shared all the same.
    keep_changing(&mut engine, &a, 5, 23);
    let before = skipped(&engine);
    assert!(before > 0);
    for vm in [&a, &b] {
        (0..64).for_each(|number| vm.write(number, &page(number as u32)));
    }
    settle(&mut engine);
    assert!(matches!(state(&engine, &a, 5), PageState::Shared(_)));
    let before = skipped(&engine);
    // A pass finds it broken, and the next looks at it, thrice, as at any page that is new to it.
    for round in 0..3 {
        a.write(5, &page(2000 + round));
        engine.pass();
        assert_eq!(state(&engine, &a, 5), PageState::Volatile);
        engine.pass();
        assert_eq!(state(&engine, &a, 5), PageState::Unshared, "round {round}");
    }
    assert_eq!(skipped(&engine), before);
    // Shared again, it is as new as before.
    a.write(5, &page(5));
    settle(&mut engine);
    assert!(matches!(state(&engine, &a, 5), PageState::Shared(_)));
    (0..64).for_each(|number| b.write(number, &page(3000 + number as u32)));
    settle(&mut engine);
    assert_eq!(skipped(&engine), before);
    check_counters(&engine);
}

#[test]
fn a_page_that_is_broken_at_any_step_of_a_pass_is_not_passed_over_by_it_or_the_next() {
    let knobs = |engine: &Engine| Knobs { pages_to_scan: 4, ..engine.knobs() };
    for broken_after in 0..24 {
        let mut engine = engine();
        let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, 32));
        for vm in &vms {
            (0..16).for_each(|number| vm.write(number, &page(number as u32)));
        }
        settle(&mut engine);
        // Others that do not change any more, so that there is something to age in every step.
        for vm in &vms {
            (16..32).for_each(|number| vm.write(number, &page(number as u32)));
        }
        engine.pass();
        engine.set_knobs(knobs(&engine)).unwrap();
        let mut steps = 0;
        loop {
            if steps == broken_after {
                (0..16).for_each(|number| vms[0].write(number, &page(100 + number as u32)));
            }
            steps += 1;
            if matches!(engine.step(), Step::Done(_)) {
                break;
            }
        }
        if steps <= broken_after {
            assert!(steps > 6, "{steps} steps");
            return;
        }
        engine.pass();
        engine.pass();
        engine.check().unwrap();
        assert_eq!(skipped(&engine), 0, "broken after {broken_after} steps");
        for number in 0..16 {
            assert_eq!(state(&engine, &vms[0], number), PageState::Unshared);
            assert_eq!(vms[0].read(number), page(100 + number as u32));
            assert_eq!(vms[1].read(number), page(number as u32));
        }
    }
    panic!("a pass of 64 pages, four a step, takes fewer than 24 steps");
}

const VM: VmId = VmId(0);

/// Its pages.
fn pages() -> [LinearIndex; 8] {
    std::array::from_fn(|number| LinearIndex(number as u32))
}

/// A broker that knows the VM.
fn broker() -> LocalBroker {
    let mut broker = LocalBroker::new(1 << 10, 256).unwrap();
    broker.register(VM, 8).unwrap();
    broker
}

fn report(broker: &mut LocalBroker, outcome: impl Fn(LinearIndex) -> Outcome) {
    broker.report(VM, &pages().map(outcome)).unwrap();
}

/// Whether a page that has not changed since the last pass is passed over.
fn is_skipped(broker: &mut LocalBroker) -> bool {
    let mut skip = Vec::new();
    broker.age(VM, &pages()[3..4], &mut skip).unwrap();
    skip[0]
}

/// Has all pages share one slot, and none have an age from when it is offered on.
fn merge_without_ages(broker: &mut LocalBroker) {
    let fingerprint = broker.secret().fingerprint(&page(1));
    let offers = pages().map(|linear| Offer { linear, fingerprint });
    broker.offer(VM, &offers, &mut Vec::new()).unwrap();
    let never_skipped = |broker: &mut LocalBroker| {
        for _ in 0..300 {
            let mut skip = Vec::new();
            broker.age(VM, &pages(), &mut skip).unwrap();
            assert_eq!(skip, [false; 8]);
        }
        broker.check().unwrap();
    };
    never_skipped(broker);
    let mut directives = Vec::new();
    broker.directives(VM, 9, &mut directives).unwrap();
    let Some(&Directive::Create { slot, linear: LinearIndex(0), .. }) = directives.first() else {
        panic!("{directives:?}")
    };
    never_skipped(broker);
    broker.fill(VM, slot, &page(1), &mut Vec::new()).unwrap();
    report(broker, |linear| Outcome::Merged(Extent { linear, slot, page_count: 1 }));
    assert_eq!(broker.stats("test").pages_sharing, 7);
    never_skipped(broker);
}

#[test]
fn a_broker_asked_the_age_of_a_page_that_shares_a_slot_neither_reads_nor_makes_one() {
    let mut broker = broker();
    merge_without_ages(&mut broker);
    // What has left its slot is as young as any.
    report(&mut broker, |linear| Outcome::Left { linear });
    let mut skips = Vec::new();
    for _ in 0..5 {
        skips.push(is_skipped(&mut broker));
    }
    assert_eq!(skips, [false, false, false, false, true]);
}

#[test]
fn a_page_that_was_broken_often_has_no_age_while_it_shares_a_slot_and_an_older_one_after_each_break()
 {
    let mut broker = broker();
    for skips in [0, 0, 1, 2, 4, 8, 8] {
        merge_without_ages(&mut broker);
        report(&mut broker, |linear| Outcome::Broken { linear });
        assert_eq!((0..99).take_while(|_| is_skipped(&mut broker)).count(), skips);
    }
    merge_without_ages(&mut broker);
    // Made private by others than its guest, it is as young as any.
    report(&mut broker, |linear| Outcome::Left { linear });
    assert!(!is_skipped(&mut broker));
    // What shares no slot cannot be broken.
    (0..9).for_each(|_| report(&mut broker, |linear| Outcome::Broken { linear }));
    assert!(!is_skipped(&mut broker));
    broker.check().unwrap();
}
