//! What folding does to the memory that there is for VMs. Alone in its program: it counts the whole
//! process.

// A failure here is a failure of its test.
#![allow(clippy::unwrap_used)]

mod control_group;

use std::sync::Arc;
use std::time::Duration;

use control_group::Group;
use pagefold::limits::Tree;
use pagefold::limits::memory::available;
use pagefold_dedup::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, PAGE_SIZE, Unchanging, VmId,
    resident_store_bytes,
};

const PAGES: u32 = 16 << 10;
const BYTES: u64 = PAGES as u64 * PAGE_SIZE as u64;

fn memory() -> Arc<AnonymousMemory> {
    let memory = AnonymousMemory::new(PAGES).unwrap();
    for page in 0..PAGES {
        let bytes = (page + 1).to_le_bytes().repeat(PAGE_SIZE / 4);
        memory.write(page as usize * PAGE_SIZE, &bytes);
    }
    Arc::new(memory)
}

#[test]
fn saving_memory_takes_nothing_from_the_room_for_vms() {
    // Without a group of its own it is the host's memory, of which others take and give.
    let Some(group) = Group::new("memory", "room") else { return };
    group.limit_memory(1 << 30);
    group.enter();
    let before = available(&Tree::real()).unwrap().1;
    let memories = [memory(), memory()];
    let mut engine = Engine::new(EngineConfig::default()).unwrap();
    for (number, memory) in (0..).zip(&memories) {
        let spec = AttachSpec {
            domain: "test".to_owned(),
            mode: DedupMode::On,
            memory: Arc::<AnonymousMemory>::clone(memory),
            changes: Box::new(Unchanging),
        };
        engine.attach(VmId(number), spec).unwrap();
    }
    assert!(engine.settle(Duration::from_mins(1), Duration::ZERO).settled);
    assert_eq!(engine.stats().saved_bytes, BYTES);
    assert_eq!(resident_store_bytes(), BYTES);
    let after = available(&Tree::real()).unwrap().1;
    // Page tables, and what the kernel counts late.
    assert!(after + (16 << 20) >= before, "{} MiB of {}", after >> 20, before >> 20);
    drop(engine);
    assert_eq!(resident_store_bytes(), 0);
}
