//! Clones of VMs that show slots whose memory has failed: nobody may read these pages.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]
#![allow(clippy::cast_possible_truncation, reason = "page numbers are small")]

mod common;

use common::{TestVm, engine, page, settle, slot, twins};
use pagefold_dedup::{CloneError, Cloning, Engine, LinearIndex, PAGE_SIZE, Slot, Unchanging, VmId};

/// Pages of a VM: more than one step copies.
const PAGES: u32 = 2000;

fn begin(engine: &mut Engine, parent: &TestVm, child: &TestVm) -> Result<Cloning, CloneError> {
    engine.begin_clone(parent.id, child.id, child.memory.clone(), Box::new(Unchanging))
}

/// Has the slots of two pages fail, of which there are no other copies.
fn lose(engine: &mut Engine, vm: VmId, pages: [usize; 2]) -> [Slot; 2] {
    pages.map(|page| {
        let lost = slot(engine, vm, page);
        assert_eq!(engine.recover_slot("test", lost).unwrap().recovered, None);
        lost
    })
}

/// Has lost slots come back from a VM that has their bytes.
fn recover(engine: &mut Engine, slots: [Slot; 2], pages: [usize; 2]) {
    let rescuer = TestVm::attached(engine, 9, PAGES);
    for number in pages {
        rescuer.write(number, &page(number as u32));
    }
    settle(engine);
    for slot in slots {
        assert!(engine.recover_slot("test", slot).unwrap().recovered.is_some());
    }
    engine.detach_and_discard(rescuer.id);
    settle(engine);
}

fn lost_pages(refused: Result<impl Sized, CloneError>, vm: VmId) -> Vec<u32> {
    let Err(error) = refused else { panic!("a clone was made of pages that are lost") };
    let words = error.to_string();
    let CloneError::Lost { parent, pages } = error else { panic!("{error:?}") };
    assert_eq!(parent, vm);
    let named: Vec<u32> = pages.iter().map(|&LinearIndex(page)| page).collect();
    assert!(named.iter().all(|page| words.contains(&page.to_string())), "{words}");
    named
}

fn assert_equal(child: &TestVm, parent: &TestVm) {
    for number in 0..PAGES as usize {
        assert!(child.read(number) == parent.read(number), "page {number}");
    }
}

#[test]
fn a_vm_that_shows_lost_slots_is_not_cloned_before_they_are_recovered() {
    let mut engine = engine();
    let [parent, _twin] = twins(&mut engine, PAGES);
    settle(&mut engine);
    // It has its own copy of a page whose slot is lost: that one can be read.
    parent.write(7, &page(7));
    parent.poke(7, 9, 1);
    let lost = lose(&mut engine, VmId(1), [3, 1500]);
    let own = slot(&engine, VmId(1), 7);
    engine.recover_slot("test", own).unwrap();

    let child = TestVm::new(2, PAGES);
    child.write(5, &page(77));
    assert_eq!(lost_pages(begin(&mut engine, &parent, &child), parent.id), [3, 1500]);
    assert_eq!(child.read(5), page(77), "nothing of the clone was made");
    assert_eq!(child.read(4), [0; PAGE_SIZE]);
    assert!(!engine.vms().any(|vm| vm == child.id));
    engine.check().unwrap();

    recover(&mut engine, lost, [3, 1500]);
    let changes = Box::new(Unchanging);
    engine.attach_clone(parent.id, child.id, child.memory.clone(), changes).unwrap();
    assert_equal(&child, &parent);
    assert_eq!(child.read(7)[9], 1);
    settle(&mut engine);
    engine.check().unwrap();
}

#[test]
fn a_clone_waits_where_a_slot_was_lost_while_it_was_made() {
    let mut engine = engine();
    let [parent, _twin] = twins(&mut engine, PAGES);
    settle(&mut engine);
    let child = TestVm::new(2, PAGES);
    let mut cloning = begin(&mut engine, &parent, &child).unwrap();
    assert!(!engine.clone_step(&mut cloning).unwrap());

    // The first page has been copied, when it could still be read.
    let lost = lose(&mut engine, parent.id, [3, 1500]);
    for _ in 0..2 {
        assert_eq!(lost_pages(engine.clone_step(&mut cloning), parent.id), [1500]);
        assert!(!engine.vms().any(|vm| vm == child.id));
        engine.check().unwrap();
    }

    recover(&mut engine, lost, [3, 1500]);
    while !engine.clone_step(&mut cloning).unwrap() {}
    assert_equal(&child, &parent);
    settle(&mut engine);
    engine.check().unwrap();
}
