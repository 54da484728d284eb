//! How long statistics occupy the engine, and how long counting memory takes beside it, with 1, 4 and 16
//! million pages that are there, every second of which is not to be folded.
//!
//! Nothing of it is resident but page tables: each page is the kernel's page of zeroes.
//!
//! `cargo bench -p pagefold-dedup --bench stats [-- PAGES...]`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints and panics")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagefold_dedup::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, LinearIndex, MemoryCount,
    PAGE_SIZE, Unchanging, VmId,
};

/// Pages of all VMs.
const SIZES: [u32; 3] = [1 << 20, 1 << 22, 1 << 24];

/// Pages of each VM.
const VM_PAGES: u32 = 1 << 18;

/// How often statistics are asked for.
const ROUNDS: u32 = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        // `cargo test --benches`: it compiles, and that is all there is to test.
        return;
    }
    let mut sizes: Vec<u32> =
        arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = SIZES.to_vec();
    }
    println!("{:>10}{:>16}{:>16}{:>8}", "pages", "engine, worst", "beside, worst", "ratio");
    for page_count in sizes {
        let mut engine = Engine::new(EngineConfig::default()).unwrap();
        let vms = 0..page_count.div_ceil(VM_PAGES);
        let memories: Vec<_> = vms.map(|vm| attach(&mut engine, VmId(vm))).collect();
        let (mut occupied, mut beside) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..ROUNDS {
            let mut count = MemoryCount::default();
            let mut is_counted = false;
            while !is_counted {
                let began = Instant::now();
                is_counted = engine.stats_with(&mut count, &BTreeMap::new()).is_some();
                let asked = Instant::now();
                if !is_counted {
                    count.run();
                }
                occupied = occupied.max(asked - began);
                beside = beside.max(asked.elapsed());
            }
        }
        let ratio = beside.as_secs_f64() / occupied.as_secs_f64();
        println!("{page_count:>10}{occupied:>16.1?}{beside:>16.1?}{ratio:>8.1}");
        drop((engine, memories));
    }
}

fn attach(engine: &mut Engine, vm: VmId) -> Arc<AnonymousMemory> {
    let memory = Arc::new(AnonymousMemory::new(VM_PAGES).unwrap());
    let mut byte = [0];
    (0..VM_PAGES as usize).for_each(|page| memory.read(page * PAGE_SIZE, &mut byte));
    let spec = AttachSpec {
        domain: "stats".to_owned(),
        mode: DedupMode::On,
        memory: memory.clone(),
        changes: Box::new(Unchanging),
    };
    engine.attach(vm, spec).unwrap();
    for page in (0..VM_PAGES).step_by(2) {
        engine.set_mergeable(vm, LinearIndex(page), 1, false).unwrap();
    }
    memory
}
