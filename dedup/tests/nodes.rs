//! Two NUMA nodes, as far as folding knows of them.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{TestVm, engine, page, settle};
use pagefold_dedup::{DedupMode, Knobs, PagesError, VmId};

#[test]
fn vms_on_different_nodes_share_only_if_merging_across_nodes_is_allowed() {
    let mut engine = engine();
    let one = TestVm::attached(&mut engine, 0, 4);
    let other = TestVm::attached(&mut engine, 1, 4);
    engine.set_numa_node(other.id, 1).unwrap();
    one.write(0, &page(1));
    other.write(0, &page(1));
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 1, "allowed by default");

    let apart = Knobs { merge_across_nodes: false, ..engine.knobs() };
    let busy = engine.set_knobs(apart).unwrap_err().to_string();
    assert!(busy.contains("run=2"), "{busy}");
    assert!(engine.knobs().merge_across_nodes, "nothing has changed");
    assert_eq!(engine.set_numa_node(one.id, 1), Err(PagesError::InUse(one.id)));
    assert_eq!(engine.set_numa_node(VmId(9), 1), Err(PagesError::NoVm(VmId(9))));

    engine.set_mode(one.id, DedupMode::Off).unwrap();
    engine.set_mode(other.id, DedupMode::Off).unwrap();
    engine.pass();
    engine.set_knobs(apart).unwrap();
    engine.set_mode(one.id, DedupMode::On).unwrap();
    engine.set_mode(other.id, DedupMode::On).unwrap();
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing, stats.pages_unshared), (0, 0, 2));

    other.write(1, &page(1));
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 1, "within a node they share");
    assert_eq!(one.read(0), page(1));
    assert_eq!(other.read(1), page(1));
}
