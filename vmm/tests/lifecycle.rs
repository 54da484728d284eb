//! The life of a VM, on real KVM.

mod common;

use std::time::{Duration, Instant};

use common::{COUNTER, PATIENCE, SLEEPER, builtin, count, host, printer, user, wait_for_progress};
use pagefold::config::DedupConfig;
use pagefold::config::{BuiltinGuest, DedupMode, FlatImage, Guest, Privilege, VmConfig};
use pagefold::memory::MAX_MEMORY_BYTES;
use pagefold::status::VmState;
use pagefold::{
    BuildError, BuiltinStatus, ForgetError, Host, HostConfig, Operation, OperationError,
    StopReason, VmHandle, WaitError,
};
use pagefold_dedup::VmId;
use pagefold_guest::ports::Control;
use pagefold_guest::workload::Preset;

#[test]
fn the_builtin_guest_starts_pauses_resumes_and_stops() {
    let host = host();
    let vm = builtin(&host, Preset::Mix, 0);
    assert_eq!(vm.state(), VmState::Created);
    vm.start().unwrap();
    let ready_ms = vm.wait_ready(PATIENCE).unwrap();
    vm.pause().unwrap();
    assert_eq!(vm.status().ready_ms, Some(ready_ms));
    assert_eq!(vm.state(), VmState::Paused);
    vm.resume().unwrap();
    vm.set_control(Control::Rest).unwrap();
    vm.wait_resting(PATIENCE).unwrap();
    vm.set_control(Control::Rest).unwrap();
    vm.wait_resting(PATIENCE).unwrap();
    assert_eq!(BuiltinStatus::of(&vm.status()).unwrap().corrupt, Some(0));
    assert_eq!(vm.stop(), StopReason::Requested);
    let status = vm.status();
    assert_eq!((status.state, status.clean), (VmState::Stopped, Some(true)));
    let builtin = BuiltinStatus::of(&status).unwrap();
    assert!(builtin.verifications.is_some() && builtin.writes.is_some());
}

#[test]
fn the_builtin_guest_finishes_when_told_to() {
    let host = host();
    let vm = builtin(&host, Preset::Churn, 0);
    vm.start().unwrap();
    vm.wait_ready(PATIENCE).unwrap();
    vm.set_control(Control::Finish).unwrap();
    assert_eq!(vm.wait(PATIENCE), Some(StopReason::Exited { code: 0 }));
    let status = vm.status();
    let builtin = BuiltinStatus::of(&status).unwrap();
    assert_eq!((builtin.corrupt, builtin.panic, status.clean), (Some(0), None, Some(true)));
}

#[test]
fn a_paused_guest_executes_nothing() {
    let host = host();
    let (vm, other) = (user(&host, COUNTER), user(&host, COUNTER));
    vm.start().unwrap();
    other.start().unwrap();
    wait_for_progress(&vm, 1_000_000);
    vm.pause().unwrap();
    let at = count(&vm);
    wait_for_progress(&other, 1_000_000);
    assert_eq!(count(&vm), at);
    vm.resume().unwrap();
    wait_for_progress(&vm, 1);
}

#[test]
fn stopping_and_pausing_do_not_wait_for_a_sleeping_guest() {
    let host = host();
    let vm = user(&host, SLEEPER);
    vm.start().unwrap();
    let before = Instant::now();
    for _ in 0..10 {
        vm.pause().unwrap();
        vm.resume().unwrap();
    }
    assert_eq!(vm.stop(), StopReason::Requested);
    assert!(before.elapsed() < PATIENCE);
}

#[test]
fn a_guest_learns_at_once_what_it_is_told_asleep_or_about_to_sleep() {
    let host = host();
    for _ in 0..100 {
        let vm = user(&host, SLEEPER);
        vm.start().unwrap();
        vm.set_control(Control::Finish).unwrap();
        assert_eq!(vm.wait(PATIENCE), Some(StopReason::Exited { code: 2 }));
    }
}

#[test]
fn a_guest_told_before_its_start_finds_out_at_once() {
    let host = host();
    let vm = user(&host, SLEEPER);
    vm.set_control(Control::Rest).unwrap();
    vm.start().unwrap();
    assert_eq!(vm.wait(PATIENCE), Some(StopReason::Exited { code: 1 }));
}

#[test]
fn eight_vms_run_in_one_process() {
    let host = host();
    let vms: Vec<_> = (0..8).map(|number| builtin(&host, Preset::Idle, number)).collect();
    for vm in &vms {
        vm.start().unwrap();
    }
    for (number, vm) in (0..).zip(&vms) {
        vm.wait_ready(PATIENCE).unwrap();
        assert_eq!(vm.id(), VmId(number));
    }
    assert_eq!(host.vms().len(), 8);
    host.stop_all();
    assert!(host.vms().iter().all(|vm| vm.status().stop_reason == Some(StopReason::Requested)));
}

#[test]
fn ids_are_never_used_twice() {
    let host = host();
    let first = user(&host, COUNTER);
    first.stop();
    drop(first);
    assert_eq!(user(&host, COUNTER).id(), VmId(1));
    assert_eq!(host.get(VmId(0)).unwrap().state(), VmState::Stopped);
    assert!(host.get(VmId(2)).is_none());
}

#[test]
fn a_vm_that_has_stopped_can_be_forgotten_and_no_other() {
    let host = host();
    let (first, second) = (user(&host, COUNTER), user(&host, COUNTER));
    assert_eq!(host.forget(VmId(7)), Err(ForgetError::NoVm(VmId(7))));
    assert_eq!(host.forget(first.id()), Err(ForgetError::NotStopped(VmId(0))));
    host.forget_stopped();
    assert_eq!(host.vms().len(), 2);
    first.stop();
    host.forget(first.id()).unwrap();
    assert!(host.get(VmId(0)).is_none());
    assert_eq!(first.status().stop_reason, Some(StopReason::Requested), "its handles still answer");
    second.stop();
    host.forget_stopped();
    assert!(host.vms().is_empty());
    assert_eq!(user(&host, COUNTER).id(), VmId(2));
}

#[test]
fn waiting_for_a_guest_that_was_never_started_is_refused_at_once() {
    let host = host();
    let vm = user(&host, COUNTER);
    let error = vm.wait_ready(Duration::MAX).unwrap_err();
    assert_eq!(error, WaitError::NotStarted { vm: VmId(0), awaited: "ready" });
    assert_eq!(error.to_string(), "the guest of VM 0 cannot be ready: start the VM first");
    let error = vm.wait_resting(Duration::MAX).unwrap_err();
    assert_eq!(error, WaitError::NotStarted { vm: VmId(0), awaited: "resting" });
    vm.stop();
    assert!(matches!(vm.wait_ready(Duration::MAX), Err(WaitError::Stopped { .. })));
}

#[test]
fn names_that_would_not_do_in_a_line_are_refused_and_leave_nothing() {
    let host = host();
    for name in ["", "two\nlines", "\u{1b}[31mred", &"x".repeat(256)] {
        let guest = BuiltinGuest { preset: Preset::Idle, vm_number: 0, seed: 1 };
        let config = VmConfig { name: Some(name.to_owned()), ..VmConfig::builtin(8 << 20, guest) };
        let error = host.vm(config).build().unwrap_err();
        assert!(error.to_string().starts_with("a VM's name has 1 to 255 bytes"), "{error}");
    }
    assert!(host.vms().is_empty());
}

#[test]
fn asking_twice_is_the_same_as_asking_once() {
    let host = host();
    let vm = user(&host, COUNTER);
    vm.start().unwrap();
    vm.start().unwrap();
    vm.resume().unwrap();
    vm.pause().unwrap();
    vm.pause().unwrap();
    assert_eq!(vm.start(), Err(OperationError::Paused { vm: VmId(0) }));
    vm.resume().unwrap();
    assert_eq!(vm.stop(), StopReason::Requested);
    assert_eq!(vm.stop(), StopReason::Requested);
}

#[test]
fn what_makes_no_sense_is_refused_precisely() {
    let host = host();
    let vm = user(&host, COUNTER);
    let not_started = |operation| Err(OperationError::NotStarted { vm: VmId(0), operation });
    assert_eq!(vm.pause(), not_started(Operation::Pause));
    assert_eq!(vm.resume(), not_started(Operation::Resume));
    vm.stop();
    let stopped = |operation| Err(OperationError::Stopped { vm: VmId(0), operation });
    assert_eq!(vm.start(), stopped(Operation::Start));
    assert_eq!(vm.pause(), stopped(Operation::Pause));
    assert_eq!(vm.resume(), stopped(Operation::Resume));
    assert_eq!(vm.set_control(Control::Rest), stopped(Operation::Control));
    assert_eq!(vm.pause().unwrap_err().to_string(), "cannot pause VM 0: it has stopped");
    assert!(vm.ram().is_none());
}

#[test]
fn waiting_for_a_guest_that_never_gets_there_ends() {
    let host = host();
    let vm = user(&host, COUNTER);
    vm.start().unwrap();
    let error = vm.wait_ready(Duration::from_millis(1)).unwrap_err();
    assert!(matches!(error, WaitError::TimedOut { .. }), "{error}");
    assert_eq!(vm.wait(Duration::ZERO), None);
    vm.request_stop();
    let error = vm.wait_ready(PATIENCE).unwrap_err();
    assert_eq!(error.to_string(), "VM 0 stopped before its guest was ready: stopped on request");
}

#[test]
fn what_a_guest_prints_by_a_string_instruction_arrives() {
    let host = host();
    let text = "READY pages=5\nCORRUPT page=17 offset=4 want=3f got=00 gpa=0x15f000 kind=common \
                version=0\nPANIC enough\n";
    let vm = user(&host, &printer(text));
    vm.start().unwrap();
    assert_eq!(vm.wait(PATIENCE), Some(StopReason::Exited { code: 0 }));
    let status = vm.status();
    assert!(status.ready_ms.is_some());
    let builtin = BuiltinStatus::of(&status).unwrap();
    assert_eq!((builtin.corrupt, builtin.corrupt_lines.len()), (Some(1), 1));
    assert_eq!(builtin.panic.as_deref(), Some("enough"));
    assert_eq!((builtin.writes, builtin.verifications), (None, None));
}

#[test]
fn vms_end_with_their_host_and_can_still_be_asked() {
    let host = host();
    let vm = user(&host, COUNTER);
    vm.start().unwrap();
    let clone = host.clone();
    drop(host);
    assert_eq!(vm.state(), VmState::Running);
    drop(clone);
    assert_eq!(vm.status().stop_reason, Some(StopReason::Requested));
}

#[test]
fn sizes_that_cannot_be_are_refused_and_leave_nothing() {
    let host = host();
    let build = |memory_bytes| {
        let code = FlatImage { code: vec![0xf4], privilege: Privilege::Kernel };
        let (guest, dedup) = (Guest::Flat(code), DedupMode::Off);
        let config = VmConfig { memory_bytes, vcpus: 1, guest, dedup, name: None };
        host.vm(config).build().unwrap_err()
    };
    assert!(matches!(build(0), BuildError::Ram(_)));
    assert!(matches!(build(4097), BuildError::Ram(_)));
    assert!(matches!(build(MAX_MEMORY_BYTES + 4096), BuildError::Ram(_)));
    assert!(matches!(build(4096), BuildError::Flat(_)));
    assert!(host.vms().is_empty());
    assert_eq!(user(&host, COUNTER).id(), VmId(4));
}

#[test]
fn a_guest_that_becomes_ready_is_folded_however_long_nothing_was_before() {
    let dedup = DedupConfig {
        busy_interval: Duration::from_millis(20),
        // Longer than the test waits.
        idle_interval: Duration::from_hours(10),
        ..DedupConfig::default()
    };
    let host = Host::new(HostConfig { dedup, ..HostConfig::default() }).unwrap();
    let guest = BuiltinGuest { preset: Preset::Idle, vm_number: 0, seed: 7 };
    let vm = host.vm(VmConfig::builtin(16 << 20, guest)).build().unwrap();
    let scans = || host.dedup().stats().unwrap().full_scans;
    let end = Instant::now() + PATIENCE;
    while scans() < 2 {
        assert!(Instant::now() < end, "{} scans of memory that nobody has touched", scans());
    }
    vm.start().unwrap();
    vm.wait_ready(PATIENCE).unwrap();
    while host.dedup().stats().unwrap().pages_zero == 0 {
        assert!(Instant::now() < end, "{:?}", host.dedup().stats());
    }
}

// It never reports that it is ready.
#[test]
fn a_guest_that_is_started_or_resumed_is_folded_however_long_nothing_was_before() {
    let dedup = DedupConfig {
        busy_interval: Duration::from_millis(1),
        // Longer than the test waits.
        idle_interval: Duration::from_hours(10),
        ..DedupConfig::default()
    };
    let host = Host::new(HostConfig { dedup, ..HostConfig::default() }).unwrap();
    let guest = Guest::Flat(FlatImage { code: SLEEPER.to_vec(), privilege: Privilege::User });
    let vm = host
        .vm(VmConfig { memory_bytes: 4 << 20, vcpus: 1, guest, dedup: DedupMode::On, name: None })
        .build()
        .unwrap();
    let scans = || host.dedup().stats().unwrap().full_scans;
    let end = Instant::now() + PATIENCE;
    // Passes have become rare when there was none for so long: a millisecond is between two that are not.
    let rare = || {
        let (mut count, mut since) = (scans(), Instant::now());
        while since.elapsed() < Duration::from_millis(500) {
            assert!(Instant::now() < end, "{:?}", host.dedup().stats());
            if scans() != count {
                (count, since) = (scans(), Instant::now());
            }
        }
        count
    };
    for act in [VmHandle::start, VmHandle::resume] {
        let before = rare();
        act(&vm).unwrap();
        while scans() == before {
            assert!(Instant::now() < end, "{:?}", host.dedup().stats());
        }
        vm.pause().unwrap();
    }
}
