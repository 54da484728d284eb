//! What memory costs that nobody has touched.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{TestVm, engine};

#[test]
fn memory_that_nobody_has_touched_costs_next_to_nothing() {
    for mib in [64_u32, 64 << 10] {
        let mut engine = engine();
        let before = engine.stats().metadata_bytes;
        let _vm = TestVm::attached(&mut engine, 1, mib << 8);
        let attached = engine.stats().metadata_bytes - before;
        // A quarter of a bit a page, and what every VM costs.
        let most = 8192 + u64::from(mib << 8) / 32;
        assert!(attached <= most, "{attached} bytes for {mib} MiB");
        for _ in 0..3 {
            assert!(engine.pass().errors.is_empty());
        }
        let after = engine.stats().metadata_bytes - before;
        assert!(after <= attached, "{after} bytes after passes, {attached} before, for {mib} MiB");
    }
}
