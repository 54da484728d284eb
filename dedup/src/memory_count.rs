//! What memory each VM takes, counted by the kernel's page map while folding goes on.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::page_set::PageSet;
use crate::stats::VmStats;
use crate::sys::{GuestMemory, PageKind, Pagemap, Space};
use crate::{DedupMode, PAGE_SIZE, VmId};

/// Pages that are looked at in one system call, which holds the process's `mmap_lock` meanwhile: about
/// a millisecond.
const PART_PAGES: u32 = 1 << 15;

/// What memory VMs take, which only the kernel knows and which takes 0.03 µs a page to find out.
///
/// It is counted without the engine, on any thread, so that folding and its requests do not wait:
///
/// ```
/// # use std::collections::BTreeMap;
/// # use pagefold_dedup::{Engine, EngineConfig, MemoryCount};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::new(EngineConfig::default())?;
/// let mut count = MemoryCount::default();
/// let stats = loop {
///     match engine.stats_with(&mut count, &BTreeMap::new()) {
///         Some(stats) => break stats,
///         // Here others may use the engine.
///         None => count.run(),
///     }
/// };
/// # assert_eq!(stats.vms.len(), 0);
/// # Ok(())
/// # }
/// ```
///
/// It keeps the VMs' memory mapped until it is dropped.
#[derive(Default)]
pub struct MemoryCount {
    vms: BTreeMap<VmId, CountedVm>,
}

/// A VM that is not attached to an engine, and is counted with those that are.
#[derive(Clone)]
pub struct UnfoldedVm {
    /// The domain that it is listed under.
    pub domain: String,
    /// Its memory.
    pub memory: Arc<dyn GuestMemory>,
}

struct CountedVm {
    space: Space,
    own: Count,
}

enum Count {
    /// It is to be found out.
    Due,
    /// The kernel did not report it.
    Unknown,
    Known(OwnMemory),
}

/// Memory of a VM that it shares with nobody.
pub(crate) struct OwnMemory {
    /// Pages in memory.
    private_pages: u64,
    /// Pages in swap.
    pub(crate) swapped: PageSet,
}

impl MemoryCount {
    /// Counts what has not been counted yet. Where the kernel does not report it, it is unknown.
    /// O(pages that are there + pages / 32 Ki).
    pub fn run(&mut self) {
        let pagemap = Pagemap::open();
        for vm in self.vms.values_mut().filter(|vm| matches!(vm.own, Count::Due)) {
            let own = pagemap.as_ref().ok().and_then(|map| OwnMemory::read(map, &vm.space).ok());
            vm.own = own.map_or(Count::Unknown, Count::Known);
        }
    }

    /// Has the count be of these VMs, where their memory lies now; returns whether all are counted. What
    /// was counted of the same memory stays. O(regions).
    pub(crate) fn enlist<'vm>(&mut self, vms: impl Iterator<Item = (VmId, &'vm Space)>) -> bool {
        let mut known = std::mem::take(&mut self.vms);
        self.vms = vms
            .map(|(vm, space)| {
                let same = known.remove(&vm).filter(|known| known.space.is_same(space));
                (vm, same.unwrap_or_else(|| CountedVm { space: space.clone(), own: Count::Due }))
            })
            .collect();
        !self.vms.values().any(|vm| matches!(vm.own, Count::Due))
    }

    /// What was counted of a VM, if that is known.
    pub(crate) fn of(&self, vm: VmId) -> Option<&OwnMemory> {
        match &self.vms.get(&vm)?.own {
            Count::Known(own) => Some(own),
            Count::Due | Count::Unknown => None,
        }
    }
}

impl UnfoldedVm {
    /// Where its memory lies, unless that could not be folded.
    pub(crate) fn space(&self) -> Option<Space> {
        Space::new(Arc::clone(&self.memory)).ok()
    }

    /// Its part of the statistics, like that of an attached VM whose mode is off. O(pages / 64).
    pub(crate) fn stats(&self, vm: VmId, own: Option<&OwnMemory>) -> VmStats {
        let regions = self.memory.regions();
        VmStats {
            id: vm.0,
            domain: self.domain.clone(),
            mode: DedupMode::Off.to_string(),
            pages: regions.iter().map(|region| u64::from(region.page_count)).sum(),
            swapped_pages: own.map(OwnMemory::swapped_pages),
            vmas: regions.len() as u64,
            private_bytes: own.map(OwnMemory::private_bytes),
            ..VmStats::default()
        }
    }
}

impl OwnMemory {
    /// Looks at all pages of a VM, part by part.
    fn read(pagemap: &Pagemap, space: &Space) -> io::Result<Self> {
        let swapped = PageSet::new(space.page_count());
        let mut own = Self { private_pages: 0, swapped };
        for piece in space.pieces() {
            let mut first = piece.linear;
            while first < piece.end() {
                let span = space.span(first, PART_PAGES);
                pagemap.scan(span, |skip, page_count, kind| match kind {
                    PageKind::Private => own.private_pages += u64::from(page_count),
                    PageKind::Swapped => {
                        own.swapped.insert_range(first.offset(skip).run(page_count));
                    }
                    PageKind::Slot | PageKind::ZeroPage => {}
                })?;
                first = first.offset(span.page_count());
            }
        }
        Ok(own)
    }

    pub(crate) fn swapped_pages(&self) -> u64 {
        u64::from(self.swapped.count())
    }

    /// Bytes in memory.
    pub(crate) fn private_bytes(&self) -> u64 {
        self.private_pages * PAGE_SIZE as u64
    }
}
