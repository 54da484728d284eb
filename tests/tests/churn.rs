//! Guests that write without pause while their memory is folded: no write may be lost, and what
//! folding believes must be true whenever everything stands still.

use std::env;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use pagefold::config::{BuiltinGuest, VmConfig};
use pagefold::{BuiltinStatus, Host, HostConfig, StopReason, VmHandle};
use pagefold_dedup::ErrorChain;
use pagefold_guest::ports::Control;
use pagefold_guest::workload::Preset;
use pagefold_tests::harness::PATIENCE;
use pagefold_tests::harness::command::Running;
use pagefold_tests::harness::http::{Answer, get, request};
use serde_json::{Value, json};
use tempfile::TempDir;

const VMS: u32 = 3;
/// On however busy a machine.
const MIN_CHECKS: u32 = 5;
const MIN_WRITES: u64 = 30_000;
/// How long the guests race between two checks: a few passes.
const ROUND: Duration = Duration::from_millis(900);

#[test]
fn no_write_is_lost_and_every_check_passes_while_guests_race_the_merges() {
    let host = Host::new(HostConfig::default()).expect("a host");
    let vms: Vec<VmHandle> = (0..VMS).map(|number| churning(&host, number)).collect();
    for vm in &vms {
        vm.start().expect("started");
    }
    for vm in &vms {
        vm.wait_ready(PATIENCE).expect("ready");
    }
    let (began, mut checks) = (Instant::now(), 0);
    let events = || host.dedup().stats().expect("statistics").events;
    let is_short = |checks| {
        let so_far = events();
        checks < MIN_CHECKS
            || writes_of(&vms) <= MIN_WRITES
            || [so_far.merges, so_far.breaks, so_far.remerges].contains(&0)
    };
    while began.elapsed() < racing() || (is_short(checks) && began.elapsed() < racing() + PATIENCE)
    {
        // Nothing but the end of a guest would be an event here, and none may end.
        assert_eq!(vms[0].wait(ROUND), None);
        for vm in &vms {
            vm.pause().expect("paused");
        }
        let checked = host.dedup().check().expect("folding goes on");
        checked.unwrap_or_else(|error| panic!("check {checks}: {}", ErrorChain::new(&error)));
        checks += 1;
        for vm in &vms {
            vm.resume().expect("resumed");
        }
    }
    let events = events();
    for vm in &vms {
        vm.set_control(Control::Finish).expect("told to finish");
    }
    for vm in &vms {
        assert_eq!(vm.wait(PATIENCE), Some(StopReason::Exited { code: 0 }), "{:?}", vm.status());
        let builtin = BuiltinStatus::of(&vm.status()).expect("the built-in guest");
        assert_eq!(builtin.corrupt, Some(0), "{:?}", builtin.corrupt_lines);
    }
    let writes = writes_of(&vms);
    println!("{writes} writes, {checks} checks, {events:?}");
    assert!(writes > MIN_WRITES && checks >= MIN_CHECKS, "{writes} writes, {checks} checks");
    assert!(events.breaks > 0 && events.remerges > 0 && events.merges > 0, "{events:?}");
    assert_eq!(events.errors, 0);
}

/// Pages that the guests have written, by their last reports.
fn writes_of(vms: &[VmHandle]) -> u64 {
    vms.iter().filter_map(|vm| BuiltinStatus::of(&vm.status())?.writes).sum()
}

#[test]
fn a_check_passes_after_every_settled_pause_and_after_vms_have_come_and_gone() {
    let host = Host::new(HostConfig::default()).expect("a host");
    let mut vms: Vec<VmHandle> = Vec::new();
    for number in 0..5 {
        let vm = churning(&host, number);
        vm.start().expect("started");
        vm.wait_ready(PATIENCE).expect("ready");
        vms.push(vm);
        if number % 2 == 1 {
            assert_eq!(vms.remove(0).stop(), StopReason::Requested);
        }
        for vm in &vms {
            vm.pause().expect("paused");
        }
        let report = host.dedup().settle(PATIENCE).expect("folding goes on");
        assert!(report.settled, "{report:?}");
        let checked = host.dedup().check().expect("folding goes on");
        checked.unwrap_or_else(|error| panic!("after VM {number}: {}", ErrorChain::new(&error)));
        for vm in &vms {
            vm.resume().expect("resumed");
        }
    }
    host.stop_all();
    let stats = host.dedup().stats().expect("statistics");
    assert_eq!((stats.vms.len(), stats.domains.len(), stats.vmas_used), (0, 0, 0), "{stats:?}");
    assert_eq!((stats.saved_bytes, stats.resident_bytes), (0, Some(0)));
}

#[test]
fn no_write_is_lost_while_slots_are_moved_and_every_knob_is_turned() {
    let directory = TempDir::new().expect("a folder");
    let socket = &directory.path().join("api");
    let args = ["--memory", "32M", "--guest", "builtin:churn"];
    let running = Running::with_ready_guests(VMS, &args, socket);
    wait_until_shared(socket);
    let end = Instant::now() + racing();
    let (moved, turns) = thread::scope(|scope| {
        let moving = scope.spawn(|| move_slots_until(socket, end));
        let turns = turn_knobs_until(socket, end);
        // Before the last compaction is waited for: so it ends soon.
        unmerge(socket);
        (moving.join().expect("slots were moved"), turns)
    });
    let emptied = patch(socket, "/v1/dedup", &json!({ "max_page_sharing": 8 }));
    let stats = get(socket, "/v1/dedup");

    running.signal("TERM");
    let ended = running.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let report = ended.json();
    let vms = report["vms"].as_array().expect("an array");
    for vm in vms {
        assert_eq!((&vm["corrupt"], &vm["clean"]), (&json!(0), &json!(true)), "{vm}");
    }
    let writes: u64 = vms.iter().map(|vm| number(vm, "writes")).sum();
    println!("{writes} writes, {turns} turns of knobs, {moved} slots moved, {stats}");
    assert!(writes > 10_000 && moved > 0 && number(&stats, "moves") > 0, "{moved}: {stats}");
    assert_eq!(number(&stats, "errors"), 0, "{stats}");
    for count in ["pages_shared", "pages_sharing", "pages_unshared"] {
        assert_eq!(number(&stats, count), 0, "{count}: {stats}");
    }
    assert_eq!(emptied.status, 200, "nothing is shared, and yet: {emptied:?}");
}

/// How long guests race whatever they race.
fn racing() -> Duration {
    let seconds = env::var("PAGEFOLD_CHURN_SECONDS").ok().map_or(10, |text| {
        text.parse().unwrap_or_else(|error| panic!("PAGEFOLD_CHURN_SECONDS={text}: {error}"))
    });
    Duration::from_secs(seconds)
}

/// Moves every slot again and again, and returns how many moves those were.
fn move_slots_until(socket: &Path, end: Instant) -> u64 {
    let mut moved = 0;
    while Instant::now() < end {
        let answer = request(socket, "POST", "/v1/dedup/compact", "{\"all\": true}");
        moved += number(&granted(&answer), "moved_slots");
    }
    moved
}

/// Turns knobs and switches VMs off and on; every 40 turns everything is taken apart and folded anew.
/// Returns how many turns there were.
fn turn_knobs_until(socket: &Path, end: Instant) -> usize {
    let mut turn = 0;
    while Instant::now() < end {
        let of = |values: [u32; 4], per: usize| values[turn / per % values.len()];
        let knobs = json!({
            "smart_scan": turn % 2,
            "use_zero_pages": turn / 2 % 2,
            "pages_to_scan": of([1 << 14, 100, 1000, 300], 3),
            "sleep_millisecs": of([0, 1, 5, 20], 5),
            "stable_node_chains_prune_millisecs": of([0, 100, 2000, 0], 7),
        });
        granted(&patch(socket, "/v1/dedup", &knobs));
        let vm = format!("/v1/vms/{}", turn / 10 % VMS as usize);
        match turn % 10 {
            3 => drop(granted(&patch(socket, &vm, &json!({ "dedup": "off" })))),
            5 => drop(granted(&patch(socket, &vm, &json!({ "dedup": "zero" })))),
            7 => drop(granted(&patch(socket, &vm, &json!({ "dedup": "on" })))),
            _ => {}
        }
        if turn % 40 == 39 {
            unmerge(socket);
            let sharing =
                patch(socket, "/v1/dedup", &json!({ "max_page_sharing": of([2, 3, 64, 256], 40) }));
            // Whether it is to be granted is seen at the end, when nobody moves anything.
            assert!([200, 409].contains(&sharing.status), "{sharing:?}");
            granted(&patch(socket, "/v1/dedup", &json!({ "run": 1, "pages_to_scan": 1 << 14 })));
            wait_until_shared(socket);
        }
        turn += 1;
    }
    turn
}

/// Takes everything apart, and returns when nothing is shared or waits to be.
fn unmerge(socket: &Path) {
    granted(&patch(socket, "/v1/dedup", &json!({ "run": 2 })));
    let counts = ["pages_shared", "pages_sharing", "pages_unshared", "pages_zero"];
    wait_until(socket, |stats| counts.iter().all(|count| number(stats, count) == 0));
}

fn wait_until_shared(socket: &Path) {
    wait_until(socket, |stats| number(stats, "pages_sharing") > 500);
}

fn wait_until(socket: &Path, is_so: impl Fn(&Value) -> bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let stats = get(socket, "/v1/dedup");
        if is_so(&stats) {
            return;
        }
        assert!(Instant::now() < end, "{stats}");
    }
}

fn patch(socket: &Path, target: &str, change: &Value) -> Answer {
    request(socket, "PATCH", target, &change.to_string())
}

fn granted(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field}: {value}"))
}

fn churning(host: &Host, vm_number: u32) -> VmHandle {
    let guest = BuiltinGuest { preset: Preset::Churn, vm_number, seed: 2 };
    host.vm(VmConfig::builtin(32 << 20, guest)).build().expect("a VM")
}
