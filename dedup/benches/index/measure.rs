//! One row: VMs of some number of pages are folded and released.

use std::sync::Arc;
use std::time::Duration;

use pagefold_dedup::internals::{Extent, ExtentMap};
use pagefold_dedup::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, PAGE_SIZE, Unchanging, VmId,
};

use crate::costs::Costs;
use crate::population::{Mix, Operation, Population, Record};

/// Slots that are filled at most, 4 KiB each: a population that needs more is left out.
pub(crate) const MAX_FILLED: u32 = 3_000_000;

/// Whose pages, and how they are shared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) vm_count: u32,
    /// Not made with more pages than that.
    pub(crate) max_pages: u32,
    pub(crate) pairs: bool,
}

impl Case {
    fn mix(self, page_count: u32) -> Mix {
        let Self { vm_count, pairs, .. } = self;
        Mix { vm_count, vm_pages: page_count / vm_count, pairs }
    }
}

/// What a case takes with one number of pages.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) page_count: u32,
    pub(crate) slots: u64,
    pub(crate) bytes_per_page: f64,
    pub(crate) costs: Costs,
}

impl Measured {
    /// Metadata as a share of what it describes.
    pub(crate) fn per_cent(&self) -> f64 {
        self.bytes_per_page * 100.0 / PAGE_SIZE as f64
    }
}

/// What the requests took, and what the agents would have beside the broker's own.
struct Account {
    costs: Costs,
    extents: Vec<ExtentMap>,
}

impl Record for Account {
    fn took(&mut self, operation: Operation, items: usize, time: Duration) {
        self.costs.add(operation, items, time);
    }

    fn mapped(&mut self, vm: VmId, extent: Extent) {
        self.extents[vm.0 as usize].insert(extent, |_| {});
    }
}

/// Measures one case, or returns `None` where it would need too much of the host's memory;
/// `agent_bytes` a page is what an agent takes beside its extents.
pub(crate) fn measure(case: Case, page_count: u32, agent_bytes: f64) -> Option<Measured> {
    let mix = case.mix(page_count);
    if mix.content_count() > MAX_FILLED {
        return None;
    }
    let extents = (0..mix.vm_count).map(|_| ExtentMap::default()).collect();
    let mut population = Population::fold(mix, Account { costs: Costs::default(), extents });
    let stats = population.broker.stats("index");
    let extents = population.record.extents.iter().map(ExtentMap::heap_bytes).sum::<usize>();
    let bytes = stats.metadata_bytes + extents as u64;
    let bytes_per_page = bytes as f64 / mix.page_count() as f64 + agent_bytes;
    population.release(|_| {});
    let after = population.broker.stats("index");
    assert_eq!((after.pages_shared, after.pages_unshared), (0, 0), "everything was released");
    let (slots, costs) = (stats.pages_shared, population.record.costs);
    Some(Measured { page_count, slots, bytes_per_page, costs })
}

/// What an agent takes for each page of its VM, before anything is shared.
pub(crate) fn agent_bytes_per_page() -> f64 {
    const PAGES: u32 = 1_000_000;
    let mut engine = Engine::new(EngineConfig::default()).unwrap();
    let spec = AttachSpec {
        domain: "index".to_owned(),
        mode: DedupMode::On,
        memory: Arc::new(AnonymousMemory::new(PAGES).unwrap()),
        changes: Box::new(Unchanging),
    };
    engine.attach(VmId(0), spec).unwrap();
    let stats = engine.stats();
    (stats.metadata_bytes - stats.domains[0].metadata_bytes) as f64 / f64::from(PAGES)
}
