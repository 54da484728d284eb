//! Folds memory that a program goes on writing, with a change source of its own: its writers note the pages
//! that they have written in a list.
#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pagefold::dedup::{
    AnonymousMemory, AttachSpec, ChangeSource, DedupMode, Engine, EngineConfig, LinearIndex,
    PAGE_SIZE, PageSet, VmId,
};

const PAGES: u32 = 256;

/// Memory whose writers note what they write.
#[derive(Clone)]
struct NotedMemory {
    memory: Arc<AnonymousMemory>,
    written: Arc<Mutex<Vec<LinearIndex>>>,
}

impl NotedMemory {
    fn new() -> io::Result<Self> {
        Ok(Self { memory: Arc::new(AnonymousMemory::new(PAGES)?), written: Arc::default() })
    }

    fn fill(&self, page: LinearIndex, byte: u8) {
        self.memory.write(page.0 as usize * PAGE_SIZE, &[byte; PAGE_SIZE]);
        // After it was written: one that is noted first can be taken for unchanged by a pass in between.
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(page);
    }
}

/// What is noted is handed on once, and never too little: a page too many costs a look, one too few a wrong count.
impl ChangeSource for NotedMemory {
    fn collect(&mut self, changed: &mut PageSet) -> io::Result<()> {
        for page in self.written.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            changed.insert(page);
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut engine = Engine::new(EngineConfig::default())?;
    let vms = [NotedMemory::new()?, NotedMemory::new()?];
    for (id, vm) in (0..).zip(&vms) {
        (0..PAGES).for_each(|page| vm.fill(LinearIndex(page), 0xa5));
        let spec = AttachSpec {
            domain: "example".to_owned(),
            mode: DedupMode::On,
            memory: Arc::clone(&vm.memory) as _,
            changes: Box::new(vm.clone()),
        };
        engine.attach(VmId(id), spec)?;
    }
    let mut settle = |what: &str| {
        let report = engine.settle(Duration::from_secs(30), Duration::ZERO);
        let stats = engine.stats();
        println!("{what}: {} pages are saved, {} breaks", stats.pages_sharing, stats.events.breaks);
        if report.settled { Ok(()) } else { Err("not settled") }
    };
    settle("all pages alike")?;
    (0..100).for_each(|page| vms[0].fill(LinearIndex(page), 0x5a));
    settle("100 written")?;
    (0..100).for_each(|page| vms[0].fill(LinearIndex(page), 0xa5));
    settle("written back")?;
    Ok(())
}
