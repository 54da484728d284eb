//! Mappings that are given back when the kernel allows it.

use std::sync::Arc;

use crate::LinearIndex;
use crate::sys::refuse_moves;
use crate::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, PAGE_SIZE, VmId, WrittenPages,
};

const PAGES: u32 = 1000;

fn write(memory: &AnonymousMemory, written: &WrittenPages, page: u32, word: u32) {
    memory.write(page as usize * PAGE_SIZE, &word.to_ne_bytes());
    written.insert(LinearIndex(page));
}

/// Two VMs, of whose pages every second is equal in both, folded.
fn folded_vms(engine: &mut Engine) -> [(Arc<AnonymousMemory>, WrittenPages); 2] {
    let vms = [0, 1].map(|id| {
        let memory = Arc::new(AnonymousMemory::new(PAGES).unwrap());
        let written = WrittenPages::new(PAGES);
        for page in 0..PAGES {
            let whose = if page % 2 == 0 { 0 } else { id };
            write(&memory, &written, page, 1 + page + whose * PAGES);
        }
        let spec = AttachSpec {
            domain: "test".to_owned(),
            mode: DedupMode::On,
            memory: memory.clone(),
            changes: Box::new(written.clone()),
        };
        engine.attach(VmId(id), spec).unwrap();
        (memory, written)
    });
    (0..6).for_each(|_| drop(engine.pass()));
    vms
}

/// Pages that cannot be moved back to anonymous memory are errors, and each pass was one, or two.
#[test]
fn moves_that_are_always_refused_are_tried_ever_more_rarely_and_done_when_they_can_be() {
    let config = EngineConfig { max_mappings: Some(400), ..EngineConfig::default() };
    let mut engine = Engine::new(config).unwrap();
    let vms = folded_vms(&mut engine);
    let folded = engine.stats();
    assert!(folded.vmas_used > 300, "{folded:?}");
    for (id, (memory, written)) in (0..).zip(&vms) {
        (0..PAGES).for_each(|page| write(memory, written, page, 9 * PAGES + page + id * PAGES));
    }
    refuse_moves(true);
    (0..64).for_each(|_| drop(engine.pass()));
    let refused = engine.stats();
    refuse_moves(false);
    let errors = refused.events.errors - folded.events.errors;
    // A VM tries after 1, 3, 7, 15 and 31 passes.
    assert!((2..=14).contains(&errors), "{errors} errors in 64 passes");
    assert_eq!(refused.vmas_used, folded.vmas_used);
    (0..64).for_each(|_| drop(engine.pass()));
    let moved = engine.stats();
    assert!(moved.vmas_used < 20, "{moved:?}");
    assert_eq!(moved.events.errors, refused.events.errors);
    engine.check().unwrap();
}

#[test]
fn mappings_of_a_vm_that_is_off_which_could_not_be_given_back_are_given_back_later() {
    let mut engine = Engine::new(EngineConfig::default()).unwrap();
    let _vms = folded_vms(&mut engine);
    let folded = engine.stats();
    assert!(folded.vmas_used > 900, "{folded:?}");
    refuse_moves(true);
    for vm in [0, 1] {
        engine.set_mode(VmId(vm), DedupMode::Off).unwrap();
    }
    (0..4).for_each(|_| drop(engine.pass()));
    let refused = engine.stats();
    refuse_moves(false);
    assert!(engine.owes_mappings());
    assert_eq!((refused.pages_shared, refused.vmas_used), (0, folded.vmas_used), "{refused:?}");
    (0..64).for_each(|_| drop(engine.pass()));
    assert!(!engine.owes_mappings());
    let moved = engine.stats();
    assert!(moved.vmas_used < 10, "{moved:?}");
    engine.check().unwrap();
}

#[test]
fn nothing_is_owed_any_more_once_what_could_not_be_given_back_is_shared_again() {
    let mut engine = Engine::new(EngineConfig::default()).unwrap();
    let _vms = folded_vms(&mut engine);
    let folded = engine.stats();
    let set_modes = |engine: &mut Engine, mode| {
        for vm in [0, 1] {
            engine.set_mode(VmId(vm), mode).unwrap();
        }
    };
    refuse_moves(true);
    set_modes(&mut engine, DedupMode::Off);
    (0..4).for_each(|_| drop(engine.pass()));
    assert!(engine.owes_mappings());
    set_modes(&mut engine, DedupMode::On);
    (0..64).for_each(|_| drop(engine.pass()));
    refuse_moves(false);
    assert_eq!(engine.stats().pages_sharing, folded.pages_sharing);
    assert!(!engine.owes_mappings());
    engine.check().unwrap();
}
