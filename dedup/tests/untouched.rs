//! What memory costs that nobody has touched.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{TestVm, engine};

#[test]
fn memory_that_nobody_has_touched_costs_next_to_nothing() {
    // The figures of ARCHITECTURE: 0.02 bytes a page, and what every VM costs.
    for (mib, most) in [(64_u32, 4_500), (64 << 10, 330_000)] {
        let mut engine = engine();
        let before = engine.stats().metadata_bytes;
        let _vm = TestVm::attached(&mut engine, 1, mib << 8);
        let attached = engine.stats().metadata_bytes - before;
        assert!(attached <= most, "{attached} bytes for {mib} MiB");
        for _ in 0..3 {
            assert!(engine.pass().errors.is_empty());
        }
        let after = engine.stats().metadata_bytes - before;
        assert!(after <= attached, "{after} bytes after passes, {attached} before, for {mib} MiB");
    }
}
