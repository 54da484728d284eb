//! Random topologies: who has its pages' twins in whom, and how they lie, with more pages of a content than may share a
//! slot.

use std::time::Duration;

use pagefold_dedup::{Engine, EngineConfig, Knobs};

use crate::common::{Random, check_counters, config};
use crate::memory::{attach_all, with_contents};

/// A content of one page only is one of these.
const SINGLE: u32 = 1_000_000;

/// Which contents the pages of each VM have, and for how many mappings.
fn topology(seed: u64) -> (Vec<Vec<u32>>, u64) {
    let mut random = Random::new(seed);
    let vm_count = random.within(3..8);
    let limit = 40 + 20 * random.within(0..8);
    let mut contents = vec![Vec::new(); vm_count as usize];
    let (mut common, mut single) = (0, SINGLE);
    for group in 0..vm_count + random.within(0..vm_count) {
        let mut members = vec![group % vm_count];
        for _ in 0..random.within(0..3) {
            let other = random.within(0..vm_count);
            if !members.contains(&other) {
                members.push(other);
            }
        }
        let page_count = random.within(1..limit / 3);
        let copies = random.choice(&[1, 1, 2, 3]);
        let run = random.within(1..5);
        for &vm in members.iter().cycle().take((members.len() * copies).max(2)) {
            let pages = &mut contents[vm as usize];
            for number in 0..page_count {
                pages.push(common + number);
                if number % run == run - 1 || number == page_count - 1 {
                    pages.push(single);
                    single += 1;
                }
            }
        }
        common += page_count;
    }
    (contents, limit.into())
}

// The first ones went on for thousands of passes: a page that was tried again left its place on its node to another of
// its content, which could not be paid for.
#[test]
fn random_topologies_settle_soon_and_nothing_is_given_back_later() {
    for seed in [190, 1202, 2565].into_iter().chain(0..20) {
        let (contents, limit) = topology(seed);
        let knobs = Knobs { max_page_sharing: 2, ..Knobs::default() };
        let config = EngineConfig { max_mappings: Some(limit), knobs, ..config() };
        let mut engine = Engine::new(config).unwrap();
        let vms = with_contents(&contents);
        let (first, later) = vms.split_at(vms.len() / 2);
        for some in [first, later] {
            attach_all(&mut engine, some);
            let report = engine.settle(Duration::from_secs(30), Duration::ZERO);
            assert!(report.settled && report.passes < 250, "seed {seed}: {report:?}");
        }
        check_counters(&engine);
        let before = engine.stats().events.unmerges;
        (0..5).for_each(|_| drop(engine.pass()));
        assert_eq!(engine.stats().events.unmerges, before, "seed {seed}");
    }
}
