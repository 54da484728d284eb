//! Limits that make no sense are refused by name, when the engine is made.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{TestVm, page, settle};
use pagefold_dedup::internals::LocalBroker;
use pagefold_dedup::{Engine, EngineConfig, EngineError, KnobError, Knobs, LimitError};

#[test]
fn limits_that_make_no_sense_are_refused_by_name() {
    let defaults = EngineConfig::default;
    for (name, config) in [
        ("thread_count", EngineConfig { thread_count: Some(0), ..defaults() }),
        ("thread_count", EngineConfig { thread_count: Some(usize::MAX), ..defaults() }),
        ("store_pages", EngineConfig { store_pages: Some(0), ..defaults() }),
        ("store_pages", EngineConfig { store_pages: Some(u32::MAX), ..defaults() }),
        ("max_mappings", EngineConfig { max_mappings: Some(0), ..defaults() }),
    ] {
        let error = Engine::new(config).err().unwrap();
        assert!(error.to_string().starts_with(&format!("{name} is from 1 to ")), "{error}");
        assert!(matches!(error, EngineError::Config(LimitError { name: n, .. }) if n == name));
    }
    let refused = LocalBroker::new(0, 256).unwrap_err();
    assert_eq!(refused.to_string(), "the store is to hold 0 pages, and needs at least 1");
}

#[test]
fn knobs_that_make_no_sense_are_refused_by_name() {
    let defaults = Knobs::default;
    for (name, knobs) in [
        ("pages_to_scan", Knobs { pages_to_scan: 0, ..defaults() }),
        ("sleep_millisecs", Knobs { sleep_millisecs: u32::MAX, ..defaults() }),
        ("max_page_sharing", Knobs { max_page_sharing: 0, ..defaults() }),
        ("max_page_sharing", Knobs { max_page_sharing: 1, ..defaults() }),
        ("advisor_max_cpu", Knobs { advisor_max_cpu: 0, ..defaults() }),
        ("advisor_target_scan_time", Knobs { advisor_target_scan_time: 0, ..defaults() }),
        ("advisor_min_pages_to_scan", Knobs { advisor_min_pages_to_scan: 0, ..defaults() }),
    ] {
        let error = Engine::new(EngineConfig { knobs, ..EngineConfig::default() }).err().unwrap();
        let EngineError::Knobs(KnobError::BadValue { key, .. }) = error else {
            panic!("{name}: {error}");
        };
        assert_eq!(key, name);
    }
}

#[test]
fn the_least_limits_are_enough_to_fold_a_page() {
    let config = EngineConfig {
        thread_count: Some(1),
        store_pages: Some(1),
        max_mappings: Some(u64::MAX),
        ..EngineConfig::default()
    };
    let mut engine = Engine::new(config).unwrap();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, 4));
    for vm in &vms {
        vm.write(2, &page(1));
    }
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 1);
}
