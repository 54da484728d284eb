//! VMs that end, and ranges that are given up, a part at a time.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use common::{TestVm, check_counters, engine, page, settle, sharers, slot, twins};
use pagefold_dedup::{DedupMode, Engine, LinearIndex, PAGE_SIZE, Step, VmId};

/// Pages that are given up in a step at most.
const PART: u32 = 512;

const PAGES: u32 = 12 * PART;

fn settled_twins(engine: &mut Engine) -> [TestVm; 2] {
    let vms = twins(engine, PAGES);
    settle(engine);
    vms
}

#[test]
fn a_vm_leaves_a_part_each_step_and_its_number_is_free_meanwhile() {
    let mut engine = engine();
    let vms = settled_twins(&mut engine);
    let leave = engine.begin_detach_and_discard(VmId(0)).unwrap();
    assert_eq!(engine.begin_detach_and_discard(VmId(0)), None, "it is not attached any more");
    assert_eq!(engine.vms().collect::<Vec<_>>(), [VmId(1)]);
    assert!(matches!(engine.step(), Step::More));
    assert!(engine.is_leaving(leave));

    // Another VM with the number, in the same domain, while the first has not left.
    let next = TestVm::new(0, PAGES);
    (0..PAGES).for_each(|number| next.write(number as usize, &page(number)));
    next.attach(&mut engine, "test", DedupMode::On);
    engine.check().unwrap();
    let last = PAGES as usize - 1;
    let shared = slot(&engine, VmId(1), last);
    assert_eq!(sharers(&engine, shared), [VmId(1)].into(), "nobody sees the other any more");
    let mut steps = 1;
    while engine.leave_step() {
        steps += 1;
        engine.check().unwrap();
    }
    assert_eq!(steps, PAGES / PART);
    assert!(!engine.is_leaving(leave));
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
    assert_eq!(sharers(&engine, slot(&engine, VmId(1), last)), [VmId(0), VmId(1)].into());
    check_counters(&engine);
    for vm in [&vms[1], &next] {
        (0..PAGES).for_each(|number| assert_eq!(vm.read(number as usize), page(number)));
    }
    (0..PAGES).for_each(|number| assert_eq!(vms[0].read(number as usize), [0; PAGE_SIZE]));
}

#[test]
fn memory_of_a_vm_that_leaves_can_be_attached_again_at_once() {
    let mut engine = engine();
    let vms = settled_twins(&mut engine);
    engine.begin_detach_and_discard(VmId(0)).unwrap();
    vms[0].attach(&mut engine, "test", DedupMode::On);
    assert!(!engine.can_leave(), "it has left first");
    (0..PAGES).for_each(|number| vms[0].write(number as usize, &page(number)));
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
    check_counters(&engine);
}

#[test]
fn a_range_is_given_up_a_part_each_step() {
    let mut engine = engine();
    let vms = settled_twins(&mut engine);
    // A VM that is there only to be named wrongly.
    let mut gone = engine.begin_discard(VmId(1), LinearIndex(0), PAGES).unwrap();
    let mut discarding = engine.begin_discard(VmId(0), LinearIndex(100), PAGES - 100).unwrap();
    let mut steps = 1;
    let report = loop {
        if let Some(report) = engine.discard_step(&mut discarding) {
            break report;
        }
        steps += 1;
        engine.check().unwrap();
    };
    assert_eq!(steps, PAGES / PART);
    assert_eq!((report.discarded_pages, report.kept_pages), (u64::from(PAGES) - 100, 0));
    check_counters(&engine);
    for number in 0..PAGES as usize {
        let expected = if number < 100 { page(number as u32) } else { [0; PAGE_SIZE] };
        assert_eq!(vms[0].read(number), expected);
    }
    // Whoever has its number now keeps its pages.
    engine.detach_and_discard(VmId(1));
    let next = TestVm::attached(&mut engine, 1, PAGES);
    next.write(0, &page(7));
    assert_eq!(engine.discard_step(&mut gone).map(|report| report.discarded_pages), Some(0));
    assert_eq!(next.read(0), page(7));
}

// 108 ms in one go for 64 GiB, most of it in the broker, to which there was nothing to say.
#[test]
fn giving_up_memory_that_nobody_has_touched_takes_few_steps() {
    const MANY: u32 = 1 << 20;
    let mut engine = engine();
    let _vm = TestVm::attached(&mut engine, 0, MANY);
    settle(&mut engine);
    let mut discarding = engine.begin_discard(VmId(0), LinearIndex(0), MANY).unwrap();
    let mut steps = 1;
    while engine.discard_step(&mut discarding).is_none() {
        steps += 1;
    }
    assert_eq!(steps, 4);
}

#[test]
fn memory_of_a_vm_that_leaves_can_take_another_vms_pages_at_once() {
    let mut engine = engine();
    let vms = settled_twins(&mut engine);
    engine.begin_detach_and_discard(VmId(0)).unwrap();
    engine.relocate(VmId(1), LinearIndex(0), PAGES, vms[0].memory.clone()).unwrap();
    assert!(!engine.can_leave(), "it has left first");
    settle(&mut engine);
    (0..PAGES).for_each(|number| assert_eq!(vms[0].read(number as usize), page(number)));
    check_counters(&engine);
}
