//! How long a page fault of somebody else waits, in the same process, while a VM leaves: the worst one,
//! against the worst one while nothing happens.
//!
//! A thread writes fresh pages all the time and notes what each fault takes. Meanwhile a VM is detached
//! whose memory is untouched, populated, or folded. What a step of that takes is measured in processor time.
//!
//! `cargo bench -p pagefold-dedup --bench leave [-- GIB]`: GiB that are populated, 4 if it is not said;
//! 16 times as much is untouched.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints rounded figures, its counts are small, and a failure is a panic"
)]

mod faults;

use std::sync::Arc;
use std::time::{Duration, Instant};

use faults::{Faults, measure_faults};
use pagefold_dedup::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, PAGE_SIZE, Unchanging, VmId,
};

/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(3);

const GIB_PAGES: u32 = 1 << 18;

/// What is done to a VM's memory before it leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Untouched,
    Populated,
    /// Its pages, each of which it has twice, are folded.
    Folded,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        // `cargo test --benches`: it compiles, and that is all there is to test.
        return;
    }
    let gib: u32 = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(4);
    println!(
        "{:<34} {:>8} {:>10} {:>9} {:>9} {:>7} {:>6}",
        "meanwhile", "took", "step (CPU)", "worst", "99.99 %", "> 2 ms", "ratio"
    );
    let ((), idle) = measure_faults(|| std::thread::sleep(IDLE));
    print("nothing", &Took { all: IDLE, step_seconds: 0.0 }, &idle, &idle);
    let cases = [
        (16 * gib, Memory::Untouched, "untouched"),
        (gib, Memory::Populated, "populated"),
        (gib, Memory::Folded, "folded"),
    ];
    for (gib, memory, name) in cases {
        let mut engine = Engine::new(EngineConfig::default()).unwrap();
        let vm = attach(&mut engine, gib * GIB_PAGES, memory);
        let (took, faults) = measure_faults(|| leave(&mut engine));
        print(&format!("{gib} GiB leave, {name}"), &took, &faults, &idle);
        drop(vm);
    }
}

/// Attaches a VM, as number 0, and does to its memory what is to be done.
fn attach(engine: &mut Engine, page_count: u32, kind: Memory) -> Arc<AnonymousMemory> {
    let memory = Arc::new(AnonymousMemory::new(page_count).unwrap());
    match kind {
        Memory::Untouched => {}
        Memory::Populated => fill(&memory, page_count, 1),
        Memory::Folded => fill(&memory, page_count, 2),
    }
    let spec = AttachSpec {
        domain: "leave".to_owned(),
        mode: DedupMode::On,
        memory: memory.clone(),
        changes: Box::new(Unchanging),
    };
    engine.attach(VmId(0), spec).unwrap();
    if kind == Memory::Folded {
        engine.pass();
        engine.pass();
        let saved = engine.stats().pages_sharing;
        assert!(saved > u64::from(page_count) / 3, "{saved} pages are saved");
    }
    memory
}

/// Writes a number to each page, `copies` times each.
fn fill(memory: &AnonymousMemory, page_count: u32, copies: u32) {
    for page in 0..page_count {
        let number = u64::from(page % (page_count / copies)) + 1;
        memory.swap(page as usize * PAGE_SIZE, number);
    }
}

/// What it took that a VM left: all in all, and the processor time of the longest step.
struct Took {
    all: Duration,
    step_seconds: f64,
}

/// Has VM 0 end, a step at a time.
fn leave(engine: &mut Engine) -> Took {
    let (start, mut step_seconds) = (Instant::now(), 0_f64);
    let leave = engine.begin_detach_and_discard(VmId(0)).unwrap();
    let mut before = engine.stats().cpu_seconds;
    while engine.is_leaving(leave) {
        engine.leave_step();
        let now = engine.stats().cpu_seconds;
        step_seconds = step_seconds.max(now - before);
        before = now;
    }
    Took { all: start.elapsed(), step_seconds }
}

fn print(meanwhile: &str, took: &Took, faults: &Faults, idle: &Faults) {
    println!(
        "{meanwhile:<34} {:>6.0}ms {:>8.2}ms {:>6.0} µs {:>6.0} µs {:>7} {:>6.1}",
        took.all.as_secs_f64() * 1e3,
        took.step_seconds * 1e3,
        faults.worst.as_secs_f64() * 1e6,
        faults.rare.as_secs_f64() * 1e6,
        faults.long_count,
        faults.worst.as_secs_f64() / idle.worst.as_secs_f64(),
    );
}
