//! Bytes spoiled from outside: the guest reports it, and so does the command. Without this, that no
//! other test sees a wrong byte would mean little.

use pagefold_guest::layout::heap;
use pagefold_guest::ports::EXIT_CORRUPT;
use pagefold_tests::harness::command::{Ended, Running};
use pagefold_tests::harness::guest_ram::{guest_mappings, spoil_byte, spoil_store, store};
use pagefold_tests::harness::http;
use pagefold_tests::harness::proc::{Mapping, STORE_NAME};
use serde_json::Value;
use tempfile::TempDir;

const MEMORY_BYTES: u64 = 16 << 20;
const ARGS: [&str; 4] = ["--memory", "16M", "--guest", "builtin:idle"];
/// A byte somewhere within a page.
const OFFSET: u64 = 1234;

#[test]
fn a_byte_spoiled_in_a_shared_slot_is_seen_by_every_guest_that_shares_it() {
    let (running, _directory) = folded_run();
    let mapping = shared_heap_mapping(&running);
    spoil_store(&store(running.pid()), mapping.offset + OFFSET);
    let ended = finish(running);
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    for vm in ended.json()["vms"].as_array().expect("an array") {
        assert_corrupt(vm);
    }
}

#[test]
fn a_byte_spoiled_in_one_guests_copy_ends_the_run_with_code_3_and_spares_the_others() {
    let (running, _directory) = folded_run();
    let mapping = shared_heap_mapping(&running);
    spoil_byte(running.pid(), mapping.start + OFFSET);
    let ended = finish(running);
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    let json = ended.json();
    let vms = json["vms"].as_array().expect("an array");
    let (corrupt, intact): (Vec<_>, Vec<_>) = vms.iter().partition(|vm| vm["corrupt"] != 0);
    assert_eq!((corrupt.len(), intact.len()), (1, 2), "{json}");
    assert_corrupt(corrupt[0]);
    assert!(intact.iter().all(|vm| vm["clean"] == true), "{json}");
}

/// Three VMs that have been folded and do not write any more.
fn folded_run() -> (Running, TempDir) {
    let directory = TempDir::new().expect("a folder");
    let socket = directory.path().join("api");
    let running = Running::with_ready_guests(3, &ARGS, &socket);
    let settled = http::request(&socket, "POST", "/v1/dedup/settle", "");
    assert_eq!(settled.status, 200, "{settled:?}");
    (running, directory)
}

/// A mapping of store pages in the heap of the guest whose RAM has the highest addresses: what lies
/// below the heap is not verified.
fn shared_heap_mapping(running: &Running) -> Mapping {
    let heap = heap(MEMORY_BYTES).expect("a guest's memory");
    let mappings = guest_mappings(running.pid());
    let ram_end = mappings.last().expect("guest RAM").end;
    let heap_start = ram_end - (MEMORY_BYTES - heap.base_gpa);
    mappings
        .into_iter()
        .find(|one| one.start >= heap_start && one.path.starts_with(STORE_NAME))
        .expect("a guest shares a page of its heap")
}

/// Has the guests verify every page and end.
fn finish(running: Running) -> Ended {
    running.signal("TERM");
    running.end()
}

fn assert_corrupt(vm: &Value) {
    assert_eq!(vm["corrupt"], 1, "{vm}");
    assert_eq!(vm["clean"], false, "{vm}");
    assert_eq!(vm["stop_reason"]["kind"], "exited", "{vm}");
    assert_eq!(vm["stop_reason"]["code"], EXIT_CORRUPT, "{vm}");
    let line = vm["corrupt_lines"][0].as_str().unwrap_or_else(|| panic!("no line: {vm}"));
    assert!(line.contains("page=") && line.contains(" offset=1234 "), "{line}");
}
