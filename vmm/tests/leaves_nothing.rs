//! What is left of VMs that have gone. Alone in its program: it counts the whole process.

// A failure of what the tests share is a failure of the test.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::time::Instant;

use common::{COUNTER, PATIENCE, SLEEPER, builtin, exiter, host, user};
use pagefold_guest::workload::Preset;

fn descriptors() -> Vec<String> {
    let mut targets: Vec<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.display().to_string())
        .filter(|target| !target.ends_with("/fd"))
        .collect();
    targets.sort();
    targets
}

fn thread_count() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn count_mappings() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

fn live_and_die() {
    let host = host();
    for number in 0..4 {
        let guest = builtin(&host, Preset::Idle, number);
        guest.start().unwrap();
        guest.wait_ready(PATIENCE).unwrap();
        user(&host, COUNTER).start().unwrap();
        user(&host, SLEEPER).start().unwrap();
        let gone = user(&host, &exiter(0));
        gone.start().unwrap();
        gone.wait(PATIENCE).unwrap();
        let never_started = user(&host, COUNTER);
        assert!(never_started.ram().is_some());
    }
}

#[test]
fn descriptors_threads_and_mappings_go_with_the_host() {
    let (descriptors_before, threads_before) = (descriptors(), thread_count());
    // The first time, allocators and the cache of thread stacks fill.
    live_and_die();
    let mappings_before = count_mappings();
    live_and_die();
    live_and_die();
    assert_eq!(descriptors(), descriptors_before);
    // A thread that has been joined, or one of KVM's own, leaves /proc a moment later.
    let end = Instant::now() + PATIENCE;
    while thread_count() > threads_before {
        assert!(Instant::now() < end, "{} threads, not {threads_before}", thread_count());
        std::thread::yield_now();
    }
    // The C library keeps stacks for new threads: a few mappings may differ, but not one for each
    // of the 40 VMs.
    let mappings = count_mappings();
    assert!(mappings <= mappings_before + 8, "{mappings_before} → {mappings} mappings");
}
