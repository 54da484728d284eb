//! A move that the kernel refuses for want of mappings: alone in its process, whose limit it
//! exhausts.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::sync::Arc;

use common::{Reserve, TestVm, config, page};
use pagefold_dedup::{
    AnonymousMemory, Engine, EngineConfig, LinearIndex, PAGE_SIZE, RelocateError, RemapError,
};

/// Enough pages of two VMs, each alone between two that are not there, to need more mappings than
/// the kernel gives to a process by default, but not in one VM.
const CONTENTS: usize = 20_000;

#[test]
fn a_move_at_the_limit_of_mappings_is_refused_and_succeeds_when_there_are_some_again() {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let is_limited = limit < 4 * CONTENTS;
    if !is_limited {
        // Not the default: a host set up for many mappings. The limit cannot be reached here.
        eprintln!("vm.max_map_count is {limit}: nothing is refused");
    }
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
    let destination = Arc::new(AnonymousMemory::new(page_count).unwrap());
    let reserve = Reserve::new();
    engine.pass();
    engine.pass();

    let read_all = |memory: &AnonymousMemory, vm: &TestVm| {
        let mut bytes = [0; PAGE_SIZE];
        for number in 0..CONTENTS {
            memory.read(2 * number * PAGE_SIZE, &mut bytes);
            assert_eq!(bytes, page(number as u32));
            assert_eq!(vm.read(place(number)), page(number as u32));
        }
    };
    let first = engine.relocate(one.id, LinearIndex(0), page_count, destination.clone());
    drop(reserve);
    engine.check().unwrap();
    if is_limited {
        match first {
            Err(RelocateError::Memory { source: RemapError::Refused(error), .. }) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
            }
            other => panic!("{other:?}"),
        }
        read_all(&one.memory, &other);
        // Somebody else ends, and there are mappings again.
        engine.detach_and_discard(other.id);
        engine.relocate(one.id, LinearIndex(0), page_count, destination.clone()).unwrap();
        engine.check().unwrap();
    }
    let mut bytes = [0; PAGE_SIZE];
    for number in 0..CONTENTS {
        destination.read(2 * number * PAGE_SIZE, &mut bytes);
        assert_eq!(bytes, page(number as u32));
    }
}
