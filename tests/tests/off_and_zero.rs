//! VMs that are not folded are not touched, and VMs of which only zero pages may be folded share
//! nothing.

use pagefold::config::{BuiltinGuest, DedupMode, VmConfig};
use pagefold::{BuiltinStatus, Host, HostConfig, StopReason, VmHandle};
use pagefold_guest::ports::Control;
use pagefold_guest::workload::Preset;
use pagefold_tests::harness::guest_ram::{guest_mappings, held};
use pagefold_tests::harness::proc::{descriptors, mappings, stores};
use pagefold_tests::harness::testbed::{Spec, Testbed};
use pagefold_tests::harness::{PATIENCE, agree_within};

const TESTBED: &str = env!("CARGO_BIN_EXE_testbed");

const SPEC: Spec = Spec { count: 2, memory_mib: 32, guest: "builtin:mix", seed: 4, dedup: "off" };

#[test]
fn a_vm_that_is_not_folded_is_not_touched() {
    let mut testbed = Testbed::launch(TESTBED, SPEC);
    testbed.bring_to_rest();
    let stats = testbed.stats();
    assert_eq!((stats.saved_bytes, stats.vms.len(), stats.domains.len()), (0, 2, 0), "{stats:?}");
    let targets = descriptors(testbed.pid());
    let uffds = targets.iter().filter(|target| target.contains("userfaultfd")).count();
    assert_eq!((uffds, stores(testbed.pid()).len()), (0, 0), "{targets:?}");
    assert_eq!(guest_mappings(testbed.pid()), [], "nothing is write-protected");
    let kernel = held(testbed.pid(), testbed.ram());
    assert_eq!(kernel.count_mappings, u64::from(SPEC.count));
    assert_eq!(stats.resident_bytes, Some(kernel.private_bytes), "what it takes is known");
    testbed.finish();
}

#[test]
fn zero_pages_alone_are_given_back_when_that_is_what_was_asked_for() {
    let zero = Spec { dedup: "zero", ..SPEC };
    let mut testbed = Testbed::launch(TESTBED, zero);
    testbed.bring_to_rest();
    let stats = testbed.stats();
    assert_eq!((stats.pages_shared, stats.pages_sharing), (0, 0), "{stats:?}");
    assert_eq!((stats.events.merges, stats.pages_unshared), (0, 0), "{stats:?}");
    assert_eq!(stats.saved_bytes, stats.pages_zero * 4096);
    let zero_pages = testbed.ideal_zero_pages();
    assert!(agree_within(3, zero_pages, stats.pages_zero, zero_pages), "{zero_pages}: {stats:?}");

    let kernel = held(testbed.pid(), testbed.ram());
    assert_eq!(kernel.store_bytes, 0);
    assert_eq!(kernel.count_mappings, u64::from(SPEC.count), "a zero page costs no mapping");
    assert_eq!(stats.resident_bytes, Some(kernel.private_bytes));
    let lies_in_ram = |start| testbed.ram().iter().any(|one| (one.start..one.end).contains(&start));
    let files = mappings(testbed.pid());
    assert!(!files.iter().any(|one| lies_in_ram(one.start) && one.inode != 0), "{files:?}");

    let unfolded = {
        let mut testbed = Testbed::launch(TESTBED, SPEC);
        testbed.bring_to_rest();
        held(testbed.pid(), testbed.ram()).private_bytes
    };
    let saved_bytes = unfolded - kernel.private_bytes;
    assert!(agree_within(1, saved_bytes, stats.saved_bytes, saved_bytes), "{saved_bytes}");
    testbed.finish();
}

#[test]
fn vms_of_different_modes_live_in_one_process() {
    let host = Host::new(HostConfig::default()).expect("a host");
    let modes = [DedupMode::Off, DedupMode::On, DedupMode::Zero, DedupMode::On];
    let vms: Vec<VmHandle> = (0..)
        .zip(modes)
        .map(|(vm_number, dedup)| {
            let guest = BuiltinGuest { preset: Preset::Mix, vm_number, seed: 3 };
            let config = VmConfig { dedup, ..VmConfig::builtin(16 << 20, guest) };
            host.vm(config).build().expect("a VM")
        })
        .collect();
    for vm in &vms {
        vm.start().expect("started");
        vm.wait_ready(PATIENCE).expect("ready");
        vm.set_control(Control::Rest).expect("told to rest");
        vm.wait_resting(PATIENCE).expect("resting");
    }
    assert!(host.dedup().settle(PATIENCE).expect("folding goes on").settled);
    let stats = host.dedup().stats().expect("statistics");
    let merging: Vec<(u32, bool, bool)> =
        stats.vms.iter().map(|vm| (vm.id, vm.merging_pages > 0, vm.zero_pages > 0)).collect();
    let expected = [(0, false, false), (1, true, true), (2, false, true), (3, true, true)];
    assert_eq!(merging, expected, "0 is not folded");
    let held: u64 = stats.vms.iter().map(|vm| vm.private_bytes.expect("known")).sum();
    let stores: u64 = stats.domains.iter().map(|domain| domain.store_bytes.expect("known")).sum();
    assert!(stats.vms[0].private_bytes > Some(0));
    assert_eq!(stats.resident_bytes, Some(held + stores));
    for vm in &vms {
        vm.set_control(Control::Finish).expect("told to finish");
    }
    for vm in &vms {
        assert_eq!(vm.wait(PATIENCE), Some(StopReason::Exited { code: 0 }), "{:?}", vm.status());
        assert_eq!(BuiltinStatus::of(&vm.status()).and_then(|guest| guest.corrupt), Some(0));
    }
}
