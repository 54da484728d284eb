//! VMs with several vCPUs.

// A failure here is a failure of its test.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Instant;

use common::{PATIENCE, exiter, host};
use pagefold::config::{BuiltinGuest, DedupMode, FlatImage, Guest, Privilege, VmConfig};
use pagefold::{BuildError, Host, OperationError, Preset, StopReason, VmHandle};
use vm_memory::{Bytes, GuestAddress};

const COUNT: u32 = 3;

/// Each vCPU counts in a page of its own, for ever.
#[rustfmt::skip]
const COUNTERS: &[u8] = &[
    0x48, 0x89, 0xf8,                   // mov rax, rdi
    0x48, 0xc1, 0xe0, 0x0c,             // shl rax, 12
    0x48, 0x05, 0x00, 0x00, 0x20, 0x00, // add rax, 0x200000
    0x48, 0xff, 0x00,                   // inc qword [rax]
    0xeb, 0xfb,                         // jmp -5
];

/// vCPU `number` exits with `code`; the others go round and round.
fn ender(number: u8, code: u32) -> Vec<u8> {
    let exit = exiter(code);
    let mut bytes = vec![0x83, 0xff, number]; // cmp edi, …
    bytes.extend([0x75, u8::try_from(exit.len()).unwrap()]); // jnz over the exit
    bytes.extend(exit);
    bytes.extend([0xeb, 0xfe]); // jmp -2
    bytes
}

fn config(code: &[u8], vcpus: u32) -> VmConfig {
    VmConfig {
        memory_bytes: 4 << 20,
        vcpus,
        guest: Guest::Flat(FlatImage { code: code.to_vec(), privilege: Privilege::User }),
        dedup: DedupMode::Off,
        name: None,
    }
}

fn build(host: &Host, code: &[u8]) -> VmHandle {
    host.vm(config(code, COUNT)).build().unwrap()
}

/// Where each vCPU has come to.
fn counts(vm: &VmHandle) -> Vec<u64> {
    let ram = vm.ram().unwrap();
    let address = |number: u32| GuestAddress(0x20_0000 + u64::from(number) * 4096);
    (0..COUNT).map(|number| ram.memory().read_obj(address(number)).unwrap()).collect()
}

fn wait_for_progress_of_all(vm: &VmHandle) {
    let (before, end) = (counts(vm), Instant::now() + PATIENCE);
    while counts(vm).iter().zip(&before).any(|(now, before)| now <= before) {
        assert!(Instant::now() < end, "{before:?}, {:?}", counts(vm));
        std::thread::yield_now();
    }
}

/// How many threads there are of a VM's vCPUs.
fn thread_count(vm: &VmHandle) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default()
    };
    let prefix = format!("vm{}-vcpu", vm.id());
    tasks.map(name).filter(|name| name.starts_with(&prefix)).count()
}

#[test]
fn all_vcpus_run_pause_resume_and_stop_together() {
    let host = host();
    // Threads are named by the ids of their VMs: uses up those that VMs of other tests have.
    for _ in 0..100 {
        host.vm(config(&[], 0)).build().unwrap_err();
    }
    let vm = &build(&host, COUNTERS);
    assert_eq!((thread_count(vm), counts(vm)), (3, vec![0; 3]));
    vm.start().unwrap();
    wait_for_progress_of_all(vm);
    for _ in 0..100 {
        vm.pause().unwrap();
        let paused = counts(vm);
        std::thread::yield_now();
        assert_eq!(counts(vm), paused);
        vm.resume().unwrap();
    }
    wait_for_progress_of_all(vm);
    assert_eq!(vm.stop(), StopReason::Requested);
    assert_eq!(thread_count(vm), 0);
    assert!(matches!(vm.pause(), Err(OperationError::Stopped { .. })));
}

#[test]
fn the_end_of_any_vcpu_is_the_end_of_the_vm() {
    let host = host();
    for number in [0, 1, 2] {
        let vm = build(&host, &ender(number, 5));
        vm.start().unwrap();
        assert_eq!(vm.wait(PATIENCE), Some(StopReason::Exited { code: 5 }));
        // That the others were stopped for it changes nothing.
        host.stop_all();
        assert_eq!(vm.status().stop_reason, Some(StopReason::Exited { code: 5 }));
        assert!(vm.ram().is_none());
    }
}

#[test]
fn a_stop_comes_through_to_all_vcpus_against_pauses() {
    let host = host();
    for _ in 0..20 {
        let vm = build(&host, COUNTERS);
        vm.start().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| while vm.pause().and_then(|()| vm.resume()).is_ok() {});
            assert_eq!(vm.stop(), StopReason::Requested);
        });
    }
}

#[test]
fn numbers_of_vcpus_that_cannot_be_are_refused() {
    let host = host();
    for vcpus in [0, 256, u32::MAX] {
        let error = host.vm(config(COUNTERS, vcpus)).build().unwrap_err();
        assert!(matches!(error, BuildError::Vcpus { max: 255, .. }), "{error}");
    }
    let error = config(COUNTERS, 113).check().unwrap_err();
    assert!(matches!(error, BuildError::Flat(_)), "{error}");
    let guest = BuiltinGuest { preset: Preset::Idle, vm_number: 0, seed: 7 };
    let error = VmConfig { vcpus: 2, ..VmConfig::builtin(8 << 20, guest) }.check().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the built-in guest runs on one vCPU, and 2 were asked for: use more VMs"
    );
    assert!(host.vms().is_empty());
}
