//! Folds memory that no VM has: any program's, which is taken for that of two VMs.
#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use pagefold::dedup::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, PAGE_SIZE, Unchanging, VmId,
};

const PAGES: u32 = 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let mut engine = Engine::new(EngineConfig::default())?;
    let mut memories = Vec::new();
    for id in 0..2 {
        let memory = Arc::new(AnonymousMemory::new(PAGES)?);
        // Three of four pages are the same in both, and the others nowhere.
        for page in 0..PAGES as usize {
            let owner = if page % 4 == 0 { u64::from(id) } else { 9 };
            let word = (owner << 32 | page as u64).to_le_bytes();
            memory.write(page * PAGE_SIZE, &word.repeat(PAGE_SIZE / word.len()));
        }
        let spec = AttachSpec {
            domain: "example".to_owned(),
            mode: DedupMode::On,
            memory: Arc::clone(&memory) as _,
            // Nobody writes it any more; `change_source.rs` shows memory that is written.
            changes: Box::new(Unchanging),
        };
        engine.attach(VmId(id), spec)?;
        memories.push(memory);
    }
    let report = engine.settle(Duration::from_secs(30), Duration::ZERO);
    if !report.settled {
        return Err(format!("not settled after {} ms", report.elapsed_ms).into());
    }
    let stats = engine.stats();
    println!("{} of {PAGES} pages are saved after {} passes", stats.pages_sharing, report.passes);

    // The bytes are the same wherever they are kept, and stay so when the engine has gone.
    for id in 0..2 {
        engine.detach(VmId(id))?;
    }
    drop(engine);
    let mut word = [0; 8];
    memories[1].read(5 * PAGE_SIZE, &mut word);
    println!("page 5 of VM 1 begins with {:#x}", u64::from_le_bytes(word));
    Ok(())
}
