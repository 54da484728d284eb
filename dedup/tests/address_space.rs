//! What domains take of the address space. Alone in its program: it counts the whole process.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use std::sync::Arc;

use common::{TestVm, check_counters, engine, page, settle};
use pagefold_dedup::{AnonymousMemory, AttachSpec, DedupMode, Engine, PAGE_SIZE, Unchanging, VmId};

const DOMAINS: u32 = 100;
const PAGES: u32 = 4;

fn address_space_bytes() -> u64 {
    let sizes = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = sizes.split(' ').next().unwrap().parse().unwrap();
    pages * PAGE_SIZE as u64
}

fn attach(engine: &mut Engine, vm: VmId) -> Arc<AnonymousMemory> {
    let memory = Arc::new(AnonymousMemory::new(PAGES).unwrap());
    (0..3).for_each(|number| memory.write(number * PAGE_SIZE, &page(7)));
    let spec = AttachSpec {
        domain: format!("domain {vm}"),
        mode: DedupMode::On,
        memory: Arc::<AnonymousMemory>::clone(&memory),
        changes: Box::new(Unchanging),
    };
    engine.attach(vm, spec).unwrap();
    memory
}

#[test]
fn a_domain_takes_address_space_for_what_it_has_shared_and_not_for_its_store() {
    let mut engine = engine();
    let _first = TestVm::attached(&mut engine, 0, PAGES);
    let before = address_space_bytes();
    let _memories: Vec<_> = (1..=DOMAINS).map(|id| attach(&mut engine, VmId(id))).collect();
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 2 * u64::from(DOMAINS));
    let each = (address_space_bytes() - before) / u64::from(DOMAINS);
    assert!(each < 20 << 20, "{} MiB a domain", each >> 20);
    check_counters(&engine);
}
