//! Guests that write without pause while their memory is folded: no write may be lost, and what
//! folding believes must be true whenever everything stands still.

use std::time::{Duration, Instant};

use pagefold::config::{BuiltinGuest, VmConfig};
use pagefold::{Host, HostConfig, StopReason, VmHandle};
use pagefold_guest::ports::Control;
use pagefold_guest::workload::Preset;
use pagefold_tests::harness::PATIENCE;

const VMS: u32 = 3;
const RACING: Duration = Duration::from_secs(10);
/// On however busy a machine.
const MIN_CHECKS: u32 = 5;
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
    let (end, mut checks) = (Instant::now() + RACING, 0);
    while Instant::now() < end || checks < MIN_CHECKS {
        // Nothing but the end of a guest would be an event here, and none may end.
        assert_eq!(vms[0].wait(ROUND), None);
        for vm in &vms {
            vm.pause().expect("paused");
        }
        let checked = host.dedup().check().expect("folding goes on");
        checked.unwrap_or_else(|error| panic!("check {checks}: {}", chain(&error)));
        checks += 1;
        for vm in &vms {
            vm.resume().expect("resumed");
        }
    }
    let events = host.dedup().stats().expect("statistics").events;
    for vm in &vms {
        vm.set_control(Control::Finish).expect("told to finish");
    }
    for vm in &vms {
        assert_eq!(vm.wait(PATIENCE), Some(StopReason::Exited { code: 0 }), "{:?}", vm.status());
        assert_eq!(vm.status().corrupt, Some(0), "{:?}", vm.status().corrupt_lines);
    }
    let writes: u64 = vms.iter().filter_map(|vm| vm.status().writes).sum();
    println!("{writes} writes, {checks} checks, {events:?}");
    assert!(writes > 30_000, "{writes} writes");
    assert!(events.breaks > 0 && events.remerges > 0 && events.merges > 0, "{events:?}");
    assert_eq!(events.errors, 0);
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
        checked.unwrap_or_else(|error| panic!("after VM {number}: {}", chain(&error)));
        for vm in &vms {
            vm.resume().expect("resumed");
        }
    }
    host.stop_all();
    let stats = host.dedup().stats().expect("statistics");
    assert_eq!((stats.vms.len(), stats.domains.len(), stats.vmas_used), (0, 0, 0), "{stats:?}");
    assert_eq!((stats.saved_bytes, stats.resident_bytes), (0, Some(0)));
}

fn churning(host: &Host, vm_number: u32) -> VmHandle {
    let guest = BuiltinGuest { preset: Preset::Churn, vm_number, seed: 2 };
    host.vm(VmConfig::builtin(32 << 20, guest)).build().expect("a VM")
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
