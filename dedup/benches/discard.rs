//! How long it takes to discard a page in a VM whose memory is folded into few and into many extents: a page that lies
//! over no slot, and one that does.
//!
//! `cargo bench -p pagefold-dedup --bench discard`

#![allow(
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints and panics; its page counts are small"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use pagefold_dedup::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, GuestMemory, LinearIndex,
    PAGE_SIZE, Unchanging, VmId,
};

/// Extents of the VM that discards.
const EXTENTS: [u32; 3] = [250, 2_500, 10_000];

/// Discards of each kind: their median and their worst are printed.
const DISCARDS: u32 = 200;

/// The most time until every twin is merged.
const SETTLE_LIMIT: Duration = Duration::from_mins(1);

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --benches`: it compiles, and that is all there is to test.
        return;
    }
    println!("{:>10}{:>10}{:>14}{:>14}{:>8}", "extents", "page", "median", "worst", "ratio");
    let mut at_first = None;
    for extents in EXTENTS {
        let rows = discards(extents);
        let first = *at_first.get_or_insert(rows.map(|row| row[0]));
        for (number, (name, [median, worst])) in ["private", "shared"].iter().zip(rows).enumerate()
        {
            let ratio = median.as_secs_f64() / first[number].as_secs_f64();
            println!("{extents:>10}{name:>10}{median:>14.1?}{worst:>14.1?}{ratio:>8.2}");
        }
    }
}

/// The median and the worst time of discarding a page that lies over no slot, and of one that does.
fn discards(extents: u32) -> [[Duration; 2]; 2] {
    let config = EngineConfig { max_mappings: Some(1_000_000), ..EngineConfig::default() };
    let mut engine = Engine::new(config).unwrap();
    let page_count = 2 * extents;
    let memories = [VmId(0), VmId(1)].map(|vm| attach(&mut engine, vm, page_count));
    // Twins are neighbours in neither VM, so that each is an extent.
    for number in (0..page_count).step_by(2) {
        let bytes: Vec<u8> = (number + 1).to_le_bytes().repeat(PAGE_SIZE / size_of::<u32>());
        memories[0].write(number as usize * PAGE_SIZE, &bytes);
        let twin = (number as usize * 7919) % page_count as usize;
        memories[1].write(twin * PAGE_SIZE, &bytes);
    }
    assert!(engine.settle(SETTLE_LIMIT, Duration::ZERO).settled);
    let before = engine.stats().vms[0].extents;
    assert_eq!(before, u64::from(extents));
    let rows = [1, 0].map(|first| {
        let mut times: Vec<Duration> = (0..DISCARDS)
            .map(|number| {
                let linear = LinearIndex(2 * number + first);
                let began = Instant::now();
                engine.discard(VmId(0), linear, 1).unwrap();
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        [times[times.len() / 2], times[times.len() - 1]]
    });
    assert_eq!(engine.stats().vms[0].extents + u64::from(DISCARDS), before);
    rows
}

fn attach(engine: &mut Engine, vm: VmId, page_count: u32) -> Arc<AnonymousMemory> {
    let memory = Arc::new(AnonymousMemory::new(page_count).unwrap());
    let spec = AttachSpec {
        domain: "discard".to_owned(),
        mode: DedupMode::On,
        memory: memory.clone(),
        changes: Box::new(Unchanging),
    };
    engine.attach(vm, spec).unwrap();
    memory
}
