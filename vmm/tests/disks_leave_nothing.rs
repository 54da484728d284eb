//! What is left of disks whose VMs have gone. Alone in its program: it counts the whole process.

// A failure of what the tests share is a failure of the test.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::time::Instant;

use common::{PATIENCE, host, with_disks};

fn count(what: &str) -> usize {
    fs::read_dir(Path::new("/proc/self").join(what)).unwrap().count()
}

#[test]
fn descriptors_and_threads_of_disks_go_with_their_vms_and_the_host() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("disk"), [0; 4096]).unwrap();
    let (descriptors_before, threads_before) = (count("fd"), count("task"));
    let host = host();
    let descriptors_of_host = count("fd");
    let mut vms = Vec::new();
    for _ in 0..3 {
        let config = with_disks(folder.path(), &[("disk", true), ("disk", true)]);
        let vm = host.vm(config).build().unwrap();
        vm.stop();
        // Handles are there still, which keep the serial port's interrupt; the loop drops its events in a moment.
        vms.push(vm);
        let end = Instant::now() + PATIENCE;
        while count("fd") > descriptors_of_host + vms.len() {
            assert!(Instant::now() < end, "{} descriptors", count("fd"));
            std::thread::yield_now();
        }
    }
    drop((host, vms));
    assert_eq!(count("fd"), descriptors_before);
    // A thread leaves /proc a moment after its end.
    let end = Instant::now() + PATIENCE;
    while count("task") > threads_before {
        assert!(Instant::now() < end, "{} threads, not {threads_before}", count("task"));
        std::thread::yield_now();
    }
}
