//! VMs of real memory, all of whose pages are the same.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagefold_dedup::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, PAGE_SIZE, Run, Step, Unchanging,
    VmId,
};

use crate::huge;
use crate::population::page;

/// 512 MiB each.
const COUNT_VMS: u32 = 4;
const VM_PAGES: u32 = 1 << 17;

/// In all VMs.
pub(crate) const PAGES: u64 = COUNT_VMS as u64 * VM_PAGES as u64;
pub(crate) const BYTES: u64 = PAGES * PAGE_SIZE as u64;

/// The memory, and the engine that folds it once it is attached.
pub(crate) struct Guests {
    memories: Vec<Arc<AnonymousMemory>>,
    engine: Engine,
}

impl Guests {
    /// Memory that is filled after `prepare` has been given each part of it, and attached nowhere.
    ///
    /// # Errors
    ///
    /// Those of `prepare`.
    pub(crate) fn filled(prepare: impl Fn(&AnonymousMemory) -> io::Result<()>) -> io::Result<Self> {
        let mut memories = Vec::new();
        for _ in 0..COUNT_VMS {
            let memory = AnonymousMemory::new(VM_PAGES).unwrap();
            prepare(&memory)?;
            for number in 0..VM_PAGES {
                memory.write(number as usize * PAGE_SIZE, &page(number));
            }
            memories.push(Arc::new(memory));
        }
        Ok(Self { memories, engine: Engine::new(EngineConfig::default()).unwrap() })
    }

    pub(crate) fn attach(&mut self) {
        for (vm, memory) in (0..).zip(&self.memories) {
            let spec = AttachSpec {
                domain: "unmerge".to_owned(),
                mode: DedupMode::On,
                memory: memory.clone(),
                changes: Box::new(Unchanging),
            };
            self.engine.attach(VmId(vm), spec).unwrap();
        }
    }

    /// Steps until all pages share the slots of one VM's; returns the time of each step.
    pub(crate) fn fold(&mut self) -> Vec<Duration> {
        let all = (u64::from(VM_PAGES), PAGES - u64::from(VM_PAGES), 0);
        self.step_until(all)
    }

    /// Steps until each page has its own memory again; returns the time of each step.
    pub(crate) fn unmerge(&mut self) -> Vec<Duration> {
        let mut knobs = self.engine.knobs();
        knobs.run = Run::Unmerge;
        self.engine.set_knobs(knobs).unwrap();
        let times = self.step_until((0, 0, 0));
        assert_eq!(self.engine.stats().events.unmerges, PAGES, "each page was given its own");
        times
    }

    /// Whether every byte is what it was when the memory was filled.
    pub(crate) fn verify(&self) {
        let mut bytes = [0; PAGE_SIZE];
        for (vm, memory) in self.memories.iter().enumerate() {
            for number in 0..VM_PAGES {
                memory.read(number as usize * PAGE_SIZE, &mut bytes);
                assert!(bytes == page(number), "page {number} of VM {vm} has other bytes");
            }
        }
    }

    /// How much of the memory the kernel holds in huge pages.
    pub(crate) fn huge_bytes(&self) -> u64 {
        huge::bytes_of(&self.memories)
    }

    /// Until a pass ends with these pages shared, sharing and waiting.
    fn step_until(&mut self, goal: (u64, u64, u64)) -> Vec<Duration> {
        let mut times = Vec::new();
        loop {
            let began = Instant::now();
            let step = self.engine.step();
            times.push(began.elapsed());
            match step {
                Step::Part | Step::More => {}
                Step::Done(report) => {
                    assert!(report.errors.is_empty(), "{:?}", report.errors);
                    let stats = self.engine.stats();
                    if (stats.pages_shared, stats.pages_sharing, stats.pages_unshared) == goal {
                        return times;
                    }
                }
                Step::Stopped => panic!("run is not 0"),
            }
        }
    }
}
