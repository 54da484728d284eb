//! Pages that an engine has been over.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pagefold_dedup::PageSet;
use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{AttachSpec, ChangeSource, DedupMode, Engine, EngineConfig, PAGE_SIZE, VmId};

use crate::pages::{COUNT, PAIRS, Pages};

/// Which pages are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// None.
    Distinct,
    /// Each of the first half and its counterpart in the second: each half is one extent.
    Halves,
    /// Each two neighbours: slots and pages advance together for two pages, then no longer.
    Neighbours,
}

impl Layout {
    fn fill(self) -> Pages {
        match self {
            Self::Distinct => Pages::filled(|page| page),
            Self::Halves => Pages::filled(|page| page % PAIRS),
            Self::Neighbours => Pages::filled(|page| page / 2),
        }
    }

    /// Slots in use once all is folded.
    fn slots(self) -> u32 {
        if self == Self::Distinct { 0 } else { PAIRS }
    }

    /// The fewest pages of an extent, on average, and the most.
    fn extent_pages(self) -> (u32, u32) {
        match self {
            Self::Distinct => (0, 0),
            Self::Halves => (100, PAIRS),
            Self::Neighbours => (1, 2),
        }
    }
}

/// Names every page, once it is notified that they were written.
struct AllAtOnce(Arc<AtomicBool>);

impl ChangeSource for AllAtOnce {
    fn collect(&mut self, changed: &mut PageSet) -> io::Result<()> {
        if self.0.swap(false, Ordering::Relaxed) {
            changed.union_with(&PageSet::full(COUNT));
        }
        Ok(())
    }
}

/// Folds fresh pages, reads them if `read_first`, and returns the time of the writes to them all.
pub(crate) fn measure(layout: Layout, read_first: bool) -> Duration {
    let pages = layout.fill();
    let written = Arc::new(AtomicBool::new(false));
    let mut engine = Engine::new(EngineConfig::default()).unwrap();
    let spec = AttachSpec {
        domain: "bench".to_owned(),
        mode: DedupMode::On,
        memory: pages.memory.clone(),
        changes: Box::new(AllAtOnce(Arc::clone(&written))),
    };
    engine.attach(VmId(0), spec).unwrap();
    let report = engine.settle(Duration::from_secs(10), Duration::ZERO);
    assert!(report.settled, "{report:?}");
    verify_merged(&engine.stats(), layout);
    if read_first {
        pages.read_all();
    }

    let time = pages.write_all();

    written.store(true, Ordering::Relaxed);
    engine.pass();
    verify_private(&engine.stats(), layout);
    time
}

fn verify_merged(stats: &DedupStats, layout: Layout) {
    let slots = layout.slots();
    assert_eq!(stats.pages_shared, u64::from(slots), "slots in use");
    assert_eq!(stats.pages_sharing, u64::from(slots), "pages saved");
    let private = u64::from(COUNT - 2 * slots) * PAGE_SIZE as u64;
    assert_eq!(stats.vms[0].private_bytes, Some(private), "the kernel's account");
    if let Some(average) = u64::from(2 * slots).checked_div(stats.vms[0].extents) {
        let (least, most) = layout.extent_pages();
        assert!(
            (u64::from(least)..=u64::from(most)).contains(&average),
            "extents of {average} pages on average in {layout:?}"
        );
    }
}

fn verify_private(stats: &DedupStats, layout: Layout) {
    assert_eq!(stats.events.breaks, u64::from(2 * layout.slots()), "pages broken by a write");
    assert_eq!((stats.pages_shared, stats.pages_sharing), (0, 0), "nothing is shared any more");
    let all = u64::from(COUNT) * PAGE_SIZE as u64;
    assert_eq!(stats.vms[0].private_bytes, Some(all), "the kernel's account");
}
