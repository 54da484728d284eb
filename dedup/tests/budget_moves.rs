//! Moves of pages to other slots when the mappings are spent.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use common::{TestVm, check_counters, page, settle};
use pagefold_dedup::{CompactScope, Engine, EngineConfig};

/// A VM whose pages have such contents, that is attached.
fn with_contents(engine: &mut Engine, id: u32, contents: impl Iterator<Item = u32>) -> TestVm {
    let contents: Vec<u32> = contents.collect();
    let vm = TestVm::attached(engine, id, contents.len() as u32);
    (0..).zip(&contents).for_each(|(number, &content)| vm.write(number, &page(content)));
    vm
}

// What a compaction saves in some VMs costs others less. These were refused what it cost them where all was spent, so pages
// stayed on both slots: what had been saved was lost.
#[test]
fn a_compaction_loses_nothing_that_is_saved_where_all_mappings_are_spent() {
    const LIMIT: u64 = 1600;
    const PAGES: u32 = 40;
    let config = EngineConfig { max_mappings: Some(LIMIT), ..common::config() };
    let mut engine = Engine::new(config).unwrap();
    let backwards = |engine: &mut Engine, id| with_contents(engine, id, (0..PAGES).rev());
    let mut vms = [0, 1].map(|id| backwards(&mut engine, id)).to_vec();
    settle(&mut engine);
    vms.extend([2, 3, 4].map(|id| with_contents(&mut engine, id, 0..PAGES)));
    settle(&mut engine);
    // Every second page is in both, and there are more than there are mappings for.
    let pages = |id: u32| {
        (0..1000).map(move |page| if page % 2 == 0 { 1000 + page } else { id << 16 | page })
    };
    vms.extend([5, 6].map(|id| with_contents(&mut engine, id, pages(id))));
    settle(&mut engine);
    let before = engine.stats();
    assert!(before.vmas_used >= LIMIT * 58 / 64, "{before:?}");
    let report = engine.compact(CompactScope::Gainful);
    assert!(report.vmas_after < report.vmas_before, "{report:?}");
    assert_eq!(report.store_bytes_after, report.store_bytes_before);
    let after = engine.stats();
    assert_eq!(
        (after.pages_sharing, after.pages_shared),
        (before.pages_sharing, before.pages_shared)
    );
    check_counters(&engine);
    for (vm, number) in vms[..2].iter().flat_map(|vm| (0..PAGES).map(move |number| (vm, number))) {
        assert_eq!(vm.read(number as usize), page(PAGES - 1 - number));
    }
}
