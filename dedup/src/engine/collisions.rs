//! Pages of different contents that have one fingerprint, on real memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::LinearIndex;
use crate::knobs::{Knobs, Run};
use crate::page_set::PageSet;
use crate::{AnonymousMemory, PAGE_SIZE, PageState, Slot, WrittenPages};

const PAGES: u32 = 16;

struct World {
    engine: Engine,
    vms: Vec<(Arc<AnonymousMemory>, WrittenPages)>,
}

impl World {
    fn new(vm_count: u32) -> Self {
        let mut engine = Engine::new(EngineConfig::default()).unwrap();
        let mut vms = Vec::new();
        for id in 0..vm_count {
            let memory = Arc::new(AnonymousMemory::new(PAGES).unwrap());
            let written = WrittenPages::new(PAGES);
            let spec = AttachSpec {
                domain: "test".to_owned(),
                mode: DedupMode::On,
                memory: Arc::clone(&memory) as _,
                changes: Box::new(written.clone()),
            };
            engine.attach(VmId(id), spec).unwrap();
            vms.push((memory, written));
        }
        Self { engine, vms }
    }

    /// A page whose fingerprint is that of any other number's.
    fn page(&self, number: u32) -> [u8; PAGE_SIZE] {
        self.engine.domains["test"].broker.secret().colliding_page(number)
    }

    fn write(&self, vm: usize, page: usize, bytes: &[u8; PAGE_SIZE]) {
        self.vms[vm].0.write(page * PAGE_SIZE, bytes);
        self.vms[vm].1.insert(LinearIndex(u32::try_from(page).unwrap()));
    }

    fn settle(&mut self) {
        // Passes, not time: it must end.
        let mut settling = Settling::new(Duration::MAX);
        self.engine.mark();
        let settled = (0..40).any(|_| settling.note(&self.engine.pass()).is_some());
        assert!(settled, "there is always something to do");
        self.engine.check().unwrap();
    }

    fn state(&self, vm: u32, page: usize) -> PageState {
        self.engine.find(VmId(vm), (page * PAGE_SIZE) as u64).unwrap().state
    }

    fn slot(&self, vm: u32, page: usize) -> Slot {
        match self.state(vm, page) {
            PageState::Shared(slot) => slot,
            state => panic!("page {page} of VM {vm} is {state:?}"),
        }
    }

    fn assert_reads(&self, vm: usize, page: usize, bytes: &[u8; PAGE_SIZE]) {
        let mut read = [0; PAGE_SIZE];
        self.vms[vm].0.read(page * PAGE_SIZE, &mut read);
        assert_eq!(read, *bytes, "page {page} of VM {vm}");
    }
}

#[test]
fn contents_of_one_fingerprint_are_each_shared() {
    let mut world = World::new(3);
    let contents: Vec<_> = (0..5).map(|number| world.page(number)).collect();
    // Each VM has them in another order, so that each finds another one's twin first.
    for vm in 0..3 {
        for (number, bytes) in contents.iter().enumerate() {
            world.write(vm, (number + vm * 2) % 5, bytes);
        }
    }
    world.settle();
    for (number, bytes) in contents.iter().enumerate() {
        let slots = [0, 1, 2].map(|vm: u32| world.slot(vm, (number + vm as usize * 2) % 5));
        assert!(slots.iter().all(|&slot| slot == slots[0]), "content {number}: {slots:?}");
        (0..3).for_each(|vm| world.assert_reads(vm, (number + vm * 2) % 5, bytes));
    }
    let stats = world.engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing), (5, 10));
    // What is settled stays so.
    let declines = stats.events.declines;
    (0..4).for_each(|_| assert!(world.engine.pass().is_quiet()));
    assert_eq!(world.engine.stats().events.declines, declines);
}

#[test]
fn a_collision_that_was_there_first_keeps_nobody_from_sharing() {
    for malicious_pages in [1, 2] {
        let mut world = World::new(3);
        let (malicious, honest) = (world.page(1), world.page(2));
        (0..malicious_pages).for_each(|page| world.write(2, page, &malicious));
        world.settle();
        for vm in [0, 1] {
            world.write(vm, 7, &honest);
        }
        world.settle();
        assert_eq!(world.slot(0, 7), world.slot(1, 7), "{malicious_pages}");
        for vm in [0, 1] {
            world.assert_reads(vm, 7, &honest);
        }
        // Whoever comes later shares it as well, and so does the other content's twin.
        world.write(0, 9, &honest);
        world.write(1, 9, &malicious);
        world.settle();
        assert_eq!(world.slot(0, 9), world.slot(0, 7));
        assert_eq!(world.slot(1, 9), world.slot(2, 0));
        // And when all of that is gone, the two are found by each other as ever.
        for (vm, byte) in (0..3).zip(1_u8..) {
            (0..PAGES as usize).for_each(|page| world.write(vm, page, &[byte; PAGE_SIZE]));
        }
        world.settle();
        (1..3).for_each(|vm| world.write(vm, 3, &honest));
        world.settle();
        assert_eq!(world.slot(1, 3), world.slot(2, 3));
    }
}

#[test]
fn a_page_that_waits_alone_is_found_after_its_fingerprint_was_contested() {
    let mut world = World::new(2);
    let contents: Vec<_> = (0..3).map(|number| world.page(number)).collect();
    // One of each: none has a twin, and each pair that is tried differs.
    contents.iter().enumerate().for_each(|(page, bytes)| world.write(0, page, bytes));
    world.settle();
    assert_eq!(world.engine.stats().pages_shared, 0);
    for page in 0..3 {
        assert_eq!(world.state(0, page), PageState::Unshared, "page {page}");
    }
    contents.iter().enumerate().for_each(|(page, bytes)| world.write(1, 2 - page, bytes));
    world.settle();
    for page in 0..3 {
        assert_eq!(world.slot(0, page), world.slot(1, 2 - page));
    }
}

#[test]
fn a_fingerprint_is_contested_no_longer_than_anything_is_in_the_trees() {
    let mut world = World::new(2);
    let contents: Vec<_> = (0..2).map(|number| world.page(number)).collect();
    let write_all = |world: &World| {
        for (page, bytes) in contents.iter().enumerate() {
            (0..2).for_each(|vm| world.write(vm, page, bytes));
        }
    };
    let is_contested = |world: &mut World| {
        world.engine.domains.get_mut("test").unwrap().local_broker().has_contested()
    };
    let set_run = |world: &mut World, run| {
        world.engine.set_knobs(Knobs { run, ..world.engine.knobs() }).unwrap();
    };
    write_all(&world);
    world.settle();
    // What stands under its name would not be found by others any more.
    (0..4).for_each(|_| drop(world.engine.pass()));
    assert!(is_contested(&mut world));
    set_run(&mut world, Run::Unmerge);
    world.settle();
    assert!(!is_contested(&mut world));
    set_run(&mut world, Run::Fold);
    write_all(&world);
    world.settle();
    for page in 0..2 {
        assert_eq!(world.slot(0, page), world.slot(1, page), "page {page}");
    }
    assert!(is_contested(&mut world));
}

/// The changes of a VM that is visited after another, which it writes when that one's pages have been
/// offered and are to be merged.
struct Meddler(Arc<AnonymousMemory>);

impl ChangeSource for Meddler {
    fn collect(&mut self, _: &mut PageSet) -> io::Result<()> {
        self.0.write(0, &[9; PAGE_SIZE]);
        Ok(())
    }
}

#[test]
fn a_page_that_is_written_at_each_merge_does_not_contest_its_fingerprint() {
    let mut world = World::new(2);
    let content = world.page(1);
    (0..2).for_each(|vm| world.write(vm, 0, &content));
    let spec = AttachSpec {
        domain: "test".to_owned(),
        mode: DedupMode::On,
        memory: Arc::new(AnonymousMemory::new(1).unwrap()),
        changes: Box::new(Meddler(Arc::clone(&world.vms[1].0))),
    };
    world.engine.attach(VmId(9), spec).unwrap();
    for _ in 0..12 {
        world.engine.pass();
        // As it was, before anybody looks again.
        world.vms[1].0.write(0, &content);
    }
    assert!(world.engine.stats().events.declines > 4, "{:?}", world.engine.stats().events);
    assert!(!world.engine.domains.get_mut("test").unwrap().local_broker().has_contested());
    world.engine.detach_and_discard(VmId(9));
    world.settle();
    assert_eq!(world.slot(0, 0), world.slot(1, 0));
}
