//! What happens when the kernel refuses a mapping: alone in its process, whose limit it exhausts.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use common::{Reserve, TestVm, config, page};
use pagefold_dedup::{Engine, EngineConfig};

/// Enough pages, each alone between two that are not there, to need more mappings than the kernel
/// gives to a process by default.
const CONTENTS: usize = 40_000;

#[test]
fn a_process_at_its_limit_of_mappings_loses_nothing_and_says_so() {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    if limit >= 2 * CONTENTS {
        // Not the default: a host set up for many mappings. The limit cannot be reached here.
        eprintln!("vm.max_map_count is {limit}: nothing is refused");
    }
    // A budget that does not hold us back.
    let config = EngineConfig { max_mappings: Some(u64::MAX), ..config() };
    let mut engine = Engine::new(config).unwrap();
    let page_count = 2 * CONTENTS as u32;
    let one = TestVm::attached(&mut engine, 0, page_count);
    let other = TestVm::attached(&mut engine, 1, page_count);
    let place = |number: usize| 2 * ((number * 7919) % CONTENTS);
    for number in 0..CONTENTS {
        one.write(2 * number, &page(number as u32));
        other.write(place(number), &page(number as u32));
    }
    // The first sees that all is written, the second finds it unchanged.
    let reserve = Reserve::new();
    engine.pass();
    engine.pass();
    drop(reserve);
    engine.check().unwrap();
    let stats = engine.stats();
    assert!(stats.events.merges > 0, "{:?}", stats.events);
    assert!(stats.events.errors > 0 || limit >= 2 * CONTENTS, "{:?}", stats.events);
    // One window's runs at most: the limit is known then, and nothing is tried against it any more.
    assert!(stats.events.errors <= 64, "{:?}", stats.events);
    engine.pass();
    assert_eq!(engine.stats().events.errors, stats.events.errors, "tried again in vain");

    for number in 0..CONTENTS {
        assert_eq!(one.read(2 * number), page(number as u32));
        assert_eq!(other.read(place(number)), page(number as u32));
    }
    // Nobody is left asleep on a page, and a write goes where it should.
    for number in 0..CONTENTS {
        one.poke(2 * number, 4095, 1);
        assert_eq!(other.read(place(number)), page(number as u32));
    }
    engine.detach_and_discard(one.id);
    engine.detach_and_discard(other.id);
    assert_eq!(engine.stats().vmas_used, 0);
}
