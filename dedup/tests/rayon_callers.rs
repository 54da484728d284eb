//! An engine that is driven by threads of a pool of its owner's.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use std::sync::Mutex;

use common::{config, twins};
use pagefold_dedup::{Engine, EngineConfig};
use rayon::ThreadPoolBuilder;

/// Enough to be read by several threads at once.
const PAGES: u32 = 4096;

#[test]
fn no_other_task_of_its_callers_pool_runs_inside_a_pass() {
    let config = EngineConfig { thread_count: Some(2), ..config() };
    let mut engine = Engine::new(config).unwrap();
    let _vms = twins(&mut engine, PAGES);
    let engine = Mutex::new(engine);
    let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|_| {
                // One thread has one task at a time, or it would wait here for itself.
                let mut engine = engine.try_lock().expect("another task's pass is not over");
                engine.pass();
            });
        }
    });
    assert_eq!(engine.into_inner().unwrap().stats().pages_sharing, u64::from(PAGES));
}
