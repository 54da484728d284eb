//! Policies, and other marks of mappings, on real memory.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::sys::Space;
use crate::{AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, Unchanging, VmId};

const PAGES: u32 = 32;

fn attach(engine: &mut Engine, id: u32, memory: &Arc<AnonymousMemory>) {
    let spec = AttachSpec {
        domain: "test".to_owned(),
        mode: DedupMode::On,
        memory: Arc::clone(memory) as _,
        changes: Box::new(Unchanging),
    };
    engine.attach(VmId(id), spec).unwrap();
}

/// Memory whose pages differ, and a view of it; it is said which pages are bound to node 0.
fn memory(bound: Range<u32>) -> (Arc<AnonymousMemory>, Space) {
    let memory = Arc::new(AnonymousMemory::new(PAGES).unwrap());
    for page in 0..PAGES {
        let byte = u8::try_from(page + 1).unwrap();
        memory.write(page as usize * PAGE_SIZE, &[byte; PAGE_SIZE]);
    }
    let space = Space::new(memory.clone()).unwrap();
    if !bound.is_empty() {
        let span = space.span(LinearIndex(bound.start), bound.end - bound.start);
        MemoryPolicy::node_0().apply(span).unwrap();
    }
    (memory, space)
}

#[test]
fn memory_keeps_the_policy_that_it_had_when_it_was_attached() {
    let bound = 8..24;
    let (one, space) = memory(bound.clone());
    let (other, _) = memory(bound.clone());
    let at = |page: u32| MemoryPolicy::at(space.span(LinearIndex(page), 1).start());
    if at(8).is_none() {
        eprintln!("this kernel knows no nodes: nothing is tested");
        return;
    }
    let mut engine = Engine::new(EngineConfig::default()).unwrap();
    attach(&mut engine, 0, &one);
    attach(&mut engine, 1, &other);
    let settled = engine.settle(Duration::from_mins(1), Duration::ZERO);
    assert!(settled.settled, "{settled:?}");
    engine.check().unwrap();
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
    let policies = || (0..PAGES).map(|page| at(page).is_some()).collect::<Vec<bool>>();
    let expected: Vec<bool> = (0..PAGES).map(|page| bound.contains(&page)).collect();
    assert_eq!(policies(), expected, "over slots");
    // Copied, given up, and made private again.
    one.write(9 * PAGE_SIZE, &[77]);
    engine.discard(VmId(0), LinearIndex(10), 4).unwrap();
    engine.check().unwrap();
    assert_eq!(policies(), expected, "some discarded");
    engine.set_mode(VmId(0), DedupMode::Off).unwrap();
    for _ in 0..4 {
        engine.pass();
    }
    engine.check().unwrap();
    assert_eq!(policies(), expected, "unmerged");
}

// The kernel kept the policy with the slot, and so for the copies of a VM that never had one.
#[test]
fn a_vm_without_a_policy_does_not_get_that_of_another_whose_pages_it_shares() {
    let (bound, _) = memory(0..PAGES);
    let (free, space) = memory(0..0);
    let policies = || {
        let at = |page| MemoryPolicy::at(space.span(LinearIndex(page), 1).start());
        (0..PAGES).filter_map(at).count()
    };
    let mut engine = Engine::new(EngineConfig::default()).unwrap();
    attach(&mut engine, 0, &bound);
    attach(&mut engine, 1, &free);
    let settled = engine.settle(Duration::from_mins(1), Duration::ZERO);
    assert!(settled.settled, "{settled:?}");
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
    // It was mapped last.
    assert_eq!(policies(), 0, "over slots");
    free.write(9 * PAGE_SIZE, &[77]);
    engine.set_mode(VmId(1), DedupMode::Off).unwrap();
    (0..4).for_each(|_| drop(engine.pass()));
    engine.check().unwrap();
    assert_eq!(policies(), 0, "unmerged");
}

// A mapping that gets its policy only once it has its pages is joined with no other: 8 were left of 2048 pages.
#[test]
fn memory_of_a_policy_is_one_mapping_again_when_it_is_unmerged() {
    const PAGES: u32 = 2048;
    let mut engine = Engine::new(EngineConfig::default()).unwrap();
    let vms = [0, 1].map(|id| {
        let memory = Arc::new(AnonymousMemory::new(PAGES).unwrap());
        for page in 0..PAGES {
            // Every other page has a twin.
            let number = if page % 2 == 0 { page } else { page + PAGES * (1 + id) };
            memory.write(page as usize * PAGE_SIZE, &(number + 1).to_le_bytes());
        }
        let space = Space::new(memory.clone()).unwrap();
        MemoryPolicy::node_0().apply(space.span(LinearIndex(0), PAGES)).unwrap();
        attach(&mut engine, id, &memory);
        memory
    });
    let settle = |engine: &mut Engine| {
        let report = engine.settle(Duration::from_mins(1), Duration::ZERO);
        assert!(report.settled, "{report:?}");
        engine.check().unwrap();
    };
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES / 2));
    engine.set_mode(VmId(0), DedupMode::Off).unwrap();
    settle(&mut engine);
    assert_eq!(engine.stats().vms[0].vmas, 1);
    let mut bytes = [0; 4];
    for page in 0..PAGES {
        vms[0].read(page as usize * PAGE_SIZE, &mut bytes);
        let number = if page % 2 == 0 { page } else { page + PAGES };
        assert_eq!(u32::from_le_bytes(bytes), number + 1);
    }
}

#[test]
fn the_check_notices_memory_that_lost_a_mark() {
    type Loss = (fn(&Space), &'static str);
    let losses: [Loss; 5] = [
        (|space| space.span(LinearIndex(0), PAGES).map_anonymous().unwrap(), "the userfaultfd"),
        (
            |space| space.span(LinearIndex(0), PAGES).advise_otherwise(libc::MADV_DOFORK),
            "child processes",
        ),
        (|space| space.span(LinearIndex(0), PAGES).advise_otherwise(libc::MADV_DODUMP), "dumps"),
        (
            |space| space.span(LinearIndex(0), PAGES).advise_otherwise(libc::MADV_HUGEPAGE),
            "huge pages",
        ),
        (
            |space| MemoryPolicy::node_0().apply(space.span(LinearIndex(0), PAGES)).unwrap(),
            "NUMA policy",
        ),
    ];
    for (lose, expected) in losses {
        let (memory, space) = memory(0..0);
        let mut engine = Engine::new(EngineConfig::default()).unwrap();
        attach(&mut engine, 0, &memory);
        engine.check().unwrap();
        lose(&space);
        // The engine's error names this VM's mappings, and its source what is wrong with them.
        let error = engine.check().unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(expected), "{cause}");
    }
}
