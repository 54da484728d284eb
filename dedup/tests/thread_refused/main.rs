//! No address space for a thread: alone in its process, whose limit it lowers.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../store_refused/sys/mod.rs"]
mod sys;

use std::thread;
use std::time::Duration;

use common::{TestVm, engine};
use pagefold_dedup::{DedupMode, PAGE_SIZE};

const PAGES: u32 = 16;
const SLEEP: Duration = Duration::from_millis(20);

fn address_space_bytes() -> u64 {
    let sizes = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = sizes.split(' ').next().unwrap().parse().unwrap();
    pages * PAGE_SIZE as u64
}

#[test]
fn a_vm_for_whose_thread_there_is_no_address_space_is_refused_and_the_process_goes_on() {
    // Stacks of threads that have ended are used again: a thread may begin where no memory can be mapped.
    let mut engine = engine();
    let threads: Vec<_> = (0..8).map(|_| thread::spawn(|| thread::sleep(SLEEP))).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let vm = TestVm::new(0, PAGES);
    let mut attach = || vm.try_attach(&mut engine, "thread", DedupMode::On);
    sys::limit_address_space(Some(address_space_bytes() / 2));
    let refused = attach();
    sys::limit_address_space(None);
    let error = refused.unwrap_err();
    assert!(format!("{error:?}").contains("Prepare"), "{error:?}");
    attach().unwrap();
}
