//! Locks that leave what the process has locked as much as it was.

use super::*;

const PAGES: u32 = 1024;

/// Two VMs with the same pages, of which the first has four locked, instead of as much elsewhere that was locked
/// at the last pass: another VM's memory, which is returned.
fn with_exchanged_locks(
    engine: &mut Engine,
    lock_pages: impl Fn(&Region) -> std::io::Result<()>,
) -> ([TestVm; 2], Region, TestVm) {
    let vms = [0, 1].map(|id| TestVm::attached(engine, id, PAGES));
    for vm in &vms {
        (0..PAGES).for_each(|number| vm.write(number as usize, &page(number)));
    }
    settle(engine);
    let elsewhere = TestVm::new(2, 4);
    lock(&elsewhere.memory.regions()[0]).unwrap();
    engine.pass();
    let whole = vms[0].memory.regions()[0];
    let host_addr = whole.host_addr + 700 * PAGE_SIZE;
    let part = Region { host_addr, page_count: 4, ..whole };
    lock_pages(&part).unwrap();
    unlock(&elsewhere.memory.regions()[0]).unwrap();
    (vms, part, elsewhere)
}

fn reasons(engine: &Engine) -> [Reason; 4] {
    let reason =
        |number: usize| engine.explain(VmId(0), (number * PAGE_SIZE) as u64).unwrap().reason;
    [699, 700, 703, 704].map(reason)
}

#[test]
fn memory_that_is_locked_when_as_much_is_unlocked_elsewhere_is_noticed_within_128_passes() {
    let _alone = alone();
    let mut engine = engine();
    let (vms, part, elsewhere) = with_exchanged_locks(&mut engine, lock);
    (0..128).for_each(|_| drop(engine.pass()));
    engine.check().unwrap();
    let [in_slot, locked] = [Reason::Shared, Reason::Locked];
    assert_eq!(reasons(&engine).each_ref(), [&in_slot, &locked, &locked, &in_slot]);
    assert_eq!(engine.stats().vms[0].merging_pages, u64::from(PAGES) - 4);
    assert_eq!(locked_bytes(&vms[0].memory.regions()[0]), part.len_bytes());

    // And that it is not any more.
    lock(&elsewhere.memory.regions()[0]).unwrap();
    unlock(&part).unwrap();
    (0..128).for_each(|_| drop(engine.pass()));
    unlock(&elsewhere.memory.regions()[0]).unwrap();
    engine.check().unwrap();
    assert_eq!(reasons(&engine).each_ref(), [&in_slot; 4]);
    assert_eq!(engine.stats().vms[0].merging_pages, PAGES.into());
}

#[test]
fn so_is_memory_that_shares_slots_until_it_is_written() {
    let _alone = alone();
    let mut engine = engine();
    let (vms, _part, _elsewhere) = with_exchanged_locks(&mut engine, lock_on_fault);
    (0..128).for_each(|_| drop(engine.pass()));
    // It knows where the kernel keeps what is locked apart.
    engine.check().unwrap();
    for number in [700, 704] {
        vms[0].write(number as usize, &page(number));
    }
    settle(&mut engine);
    engine.check().unwrap();
    let [in_slot, locked] = [Reason::Shared, Reason::Locked];
    assert_eq!(reasons(&engine).each_ref(), [&in_slot, &locked, &in_slot, &in_slot]);
}

#[test]
fn mappings_that_are_kept_apart_among_locked_pages_are_counted() {
    let _alone = alone();
    let mut engine = engine();
    let [vm, _other] = twins(&mut engine);
    let whole = vm.memory.regions()[0];
    let part = |number: usize| {
        let host_addr = whole.host_addr + number * PAGE_SIZE;
        Region { host_addr, page_count: 1, ..whole }
    };
    for number in 8..40 {
        let lock = if number % 2 == 0 { lock } else { lock_on_fault };
        lock(&part(number)).unwrap();
    }
    // In small memory a visit looks at all of it.
    (0..3).for_each(|_| drop(engine.pass()));
    engine.check().unwrap();
    (8..40).for_each(|number| unlock(&part(number)).unwrap());
    (0..3).for_each(|_| drop(engine.pass()));
    engine.check().unwrap();
    // One after the other, with passes in between.
    for (count, number) in (8..40).step_by(2).chain((9..40).step_by(2)).enumerate() {
        lock(&part(number)).unwrap();
        if count % 4 == 3 {
            engine.pass();
        }
    }
    (0..3).for_each(|_| drop(engine.pass()));
    engine.check().unwrap();
    unlock(&whole).unwrap();
    settle(&mut engine);
    engine.check().unwrap();
}

#[test]
fn pages_that_were_locked_for_a_moment_do_not_count_for_longer_than_the_sweep_takes() {
    let _alone = alone();
    let mut engine = engine();
    let [vm, _other] = twins(&mut engine);
    let whole = vm.memory.regions()[0];
    for _ in 0..4 {
        // The kernel has given them memory of their own, and nothing is locked.
        lock(&whole).unwrap();
        unlock(&whole).unwrap();
        engine.check_breaks().unwrap();
        assert_eq!(engine.stats().pages_sharing, 64);
        // In each of which the sweep looks at all of so small a VM.
        for _ in 0..3 {
            engine.pass();
        }
        engine.check_breaks().unwrap();
        settle(&mut engine);
        assert_eq!(engine.stats().pages_sharing, 64);
        engine.check().unwrap();
    }
}
