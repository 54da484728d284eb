//! VMs without processors: real memory, written by the test.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod random;
mod writer;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pagefold_dedup::{
    AnonymousMemory, AttachError, AttachSpec, ChangeSource, DedupMode, Engine, EngineConfig, Knobs,
    LinearIndex, Mapping, PAGE_SIZE, PageState, Slot, VmId, WrittenPages,
};

#[allow(unused_imports, reason = "each test binary uses a part")]
pub use {random::Random, writer::RacedPages};

/// Memory that remembers which pages were written through it.
#[derive(Clone)]
pub struct TestVm {
    pub id: VmId,
    pub memory: Arc<AnonymousMemory>,
    written: WrittenPages,
}

impl TestVm {
    pub fn new(id: u32, page_count: u32) -> Self {
        Self::with_layout(id, &[(0, page_count)])
    }

    /// A VM that sees its memory in pieces: guest-physical address and pages of each.
    pub fn with_layout(id: u32, pieces: &[(u64, u32)]) -> Self {
        let memory = AnonymousMemory::with_layout(pieces).unwrap();
        let page_count = pieces.iter().map(|(_, page_count)| page_count).sum();
        Self { id: VmId(id), memory: Arc::new(memory), written: WrittenPages::new(page_count) }
    }

    /// A VM that is attached to the engine, in the domain "test".
    pub fn attached(engine: &mut Engine, id: u32, page_count: u32) -> Self {
        let vm = Self::new(id, page_count);
        vm.attach(engine, "test", DedupMode::On);
        vm
    }

    pub fn attach(&self, engine: &mut Engine, domain: &str, mode: DedupMode) {
        self.try_attach(engine, domain, mode).unwrap();
    }

    pub fn try_attach(
        &self,
        engine: &mut Engine,
        domain: &str,
        mode: DedupMode,
    ) -> Result<(), AttachError> {
        let spec = AttachSpec {
            domain: domain.to_owned(),
            mode,
            memory: self.memory.clone(),
            changes: self.changes(),
        };
        engine.attach(self.id, spec)
    }

    /// The pages that were written since it was last asked.
    pub fn changes(&self) -> Box<dyn ChangeSource> {
        Box::new(self.written.clone())
    }

    pub fn write(&self, page: usize, bytes: &[u8; PAGE_SIZE]) {
        self.memory.write(page * PAGE_SIZE, bytes);
        self.mark(page);
    }

    pub fn poke(&self, page: usize, offset: usize, byte: u8) {
        self.memory.write(page * PAGE_SIZE + offset, &[byte]);
        self.mark(page);
    }

    /// Replaces the page's first word and returns what it was.
    pub fn swap(&self, page: usize, word: u64) -> u64 {
        let before = self.memory.swap(page * PAGE_SIZE, word);
        self.mark(page);
        before
    }

    pub fn read(&self, page: usize) -> [u8; PAGE_SIZE] {
        let mut bytes = [0; PAGE_SIZE];
        self.memory.read(page * PAGE_SIZE, &mut bytes);
        bytes
    }

    /// Has the change source name a page that was written by other means.
    pub fn mark(&self, page: usize) {
        self.written.insert(LinearIndex(u32::try_from(page).unwrap()));
    }
}

/// Has at most so many pages share a slot.
pub fn sharing_limit(max_page_sharing: u32) -> EngineConfig {
    let knobs = Knobs { max_page_sharing, ..Knobs::default() };
    EngineConfig { knobs, ..config() }
}

/// Has steps be bounded by what they handle alone, which is the same on any machine.
pub fn config() -> EngineConfig {
    EngineConfig { step_time: Some(Duration::MAX), ..EngineConfig::default() }
}

/// An engine with that [configuration](config).
pub fn engine() -> Engine {
    Engine::new(config()).unwrap()
}

/// A page that differs from that of any other number.
pub fn page(number: u32) -> [u8; PAGE_SIZE] {
    let mut bytes = [0xa5; PAGE_SIZE];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Two VMs whose pages are the same, [`page`] of each page's number.
pub fn twins(engine: &mut Engine, page_count: u32) -> [TestVm; 2] {
    [0, 1].map(|id| {
        let vm = TestVm::attached(engine, id, page_count);
        (0..page_count).for_each(|number| vm.write(number as usize, &page(number)));
        vm
    })
}

/// Passes until nothing is left to do.
pub fn settle(engine: &mut Engine) {
    let report = engine.settle(Duration::from_mins(1), Duration::ZERO);
    assert!(report.settled, "{report:?}");
    engine.check_breaks().unwrap();
}

/// The slot that a page shares.
pub fn slot(engine: &Engine, vm: VmId, number: usize) -> Slot {
    match engine.find(vm, (number * PAGE_SIZE) as u64).unwrap().state {
        PageState::Shared(slot) => slot,
        state => panic!("page {number} of VM {vm} is {state:?}"),
    }
}

/// The VMs that a walk finds at a slot.
pub fn sharers(engine: &Engine, slot: Slot) -> BTreeSet<VmId> {
    let mut found = BTreeSet::new();
    let visit = |mapping: &Mapping| {
        assert!(found.insert(mapping.vm), "VM {} is found twice", mapping.vm);
        ControlFlow::Continue(())
    };
    engine.walk("test", slot, visit).unwrap();
    found
}

/// That the counters of a domain and of its VMs say the same.
pub fn check_counters(engine: &Engine) {
    engine.check().unwrap();
    let stats = engine.stats();
    let merging: u64 = stats.vms.iter().map(|vm| vm.merging_pages).sum();
    assert_eq!(merging, stats.pages_shared + stats.pages_sharing, "{stats:?}");
    let store_bytes: Option<u64> = stats.domains.iter().map(|domain| domain.store_bytes).sum();
    assert_eq!(store_bytes, Some(stats.pages_shared * PAGE_SIZE as u64), "orphans: {stats:?}");
}

/// Mappings that are given back when it is dropped, so that the test itself, which reads all mappings, has
/// memory for that: the stacks of threads, larger than what libc keeps for the next one.
pub struct Reserve(Vec<JoinHandle<()>>);

impl Reserve {
    #[allow(clippy::new_without_default, reason = "it starts threads")]
    pub fn new() -> Self {
        let thread = || thread::Builder::new().stack_size(64 << 20).spawn(thread::park).unwrap();
        Self((0..8).map(|_| thread()).collect())
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    }
}
