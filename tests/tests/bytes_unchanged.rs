//! The bytes of every guest's RAM before and after any amount of folding are equal.

use pagefold::config::{BuiltinGuest, VmConfig};
use pagefold::{BuiltinStatus, Host, HostConfig, StopReason, VmHandle};
use pagefold_dedup::PAGE_SIZE;
use pagefold_guest::ports::Control;
use pagefold_guest::workload::Preset;
use pagefold_tests::harness::PATIENCE;
use vm_memory::{Bytes, GuestAddress};

const MEMORY_BYTES: usize = 32 << 20;

#[test]
fn folding_paused_guests_changes_no_byte_and_the_guests_go_on() {
    let host = Host::new(HostConfig::default()).expect("a host");
    let vms: Vec<VmHandle> = (0..3).map(|number| vm(&host, number)).collect();
    for vm in &vms {
        vm.start().expect("started");
        vm.wait_ready(PATIENCE).expect("ready");
    }
    for round in 0..2 {
        for vm in &vms {
            vm.pause().expect("paused");
        }
        let before = vms.iter().map(contents).collect::<Vec<_>>();
        let merges_before = count_folded(&host);
        let report = host.dedup().settle(PATIENCE).expect("folding goes on");
        assert!(report.settled, "{report:?}");
        let folded = count_folded(&host) - merges_before;
        assert!(folded > 0, "nothing was folded in round {round}: this has shown nothing");
        for (vm, before) in vms.iter().zip(&before) {
            assert_eq!(first_difference(before, &contents(vm)), None, "VM {}", vm.id());
        }
        // Reading has mapped every slot and changed nothing either.
        host.dedup().check().expect("folding goes on").expect("all is as it should be");
        for vm in &vms {
            vm.resume().expect("resumed");
        }
        assert_eq!(vms[0].wait(std::time::Duration::from_secs(1)), None, "it churns on");
    }
    for vm in &vms {
        vm.set_control(Control::Finish).expect("told to finish");
    }
    for vm in &vms {
        assert_eq!(vm.wait(PATIENCE), Some(StopReason::Exited { code: 0 }), "{:?}", vm.status());
        assert_eq!(BuiltinStatus::of(&vm.status()).and_then(|guest| guest.corrupt), Some(0));
    }
}

#[test]
fn what_the_vmm_writes_to_folded_memory_stays_and_is_seen_by_one_vm_alone() {
    let host = Host::new(HostConfig::default()).expect("a host");
    let vms: Vec<VmHandle> = (0..2).map(|number| vm(&host, number)).collect();
    for vm in &vms {
        vm.start().expect("started");
        vm.wait_ready(PATIENCE).expect("ready");
        vm.pause().expect("paused");
    }
    assert!(host.dedup().settle(PATIENCE).expect("folding goes on").settled);
    let before = vms.iter().map(contents).collect::<Vec<_>>();
    // As a device does: at pages shared, zero and private alike.
    let step = MEMORY_BYTES / 64;
    let mut want = before[0].clone();
    let ram = vms[0].ram().expect("it has not stopped");
    for at in (0..MEMORY_BYTES).step_by(step).map(|start| start + 5) {
        let bytes = [!want[at], 0x5a, !want[at + 2]];
        ram.memory().write_slice(&bytes, GuestAddress(at as u64)).expect("written");
        want[at..at + 3].copy_from_slice(&bytes);
    }
    assert!(host.dedup().settle(PATIENCE).expect("folding goes on").settled);
    assert_eq!(first_difference(&want, &contents(&vms[0])), None, "the VM that was written");
    assert_eq!(first_difference(&before[1], &contents(&vms[1])), None, "the other VM");
    let breaks = host.dedup().stats().expect("statistics").events.breaks;
    assert!(breaks > 0, "no shared page was among those written");
    host.dedup().check().expect("folding goes on").expect("all is as it should be");
}

fn vm(host: &Host, vm_number: u32) -> VmHandle {
    let guest = BuiltinGuest { preset: Preset::Churn, vm_number, seed: 25 };
    host.vm(VmConfig::builtin(MEMORY_BYTES as u64, guest)).build().expect("a VM")
}

/// All of a VM's RAM, as the VMM sees it.
fn contents(vm: &VmHandle) -> Vec<u8> {
    let mut bytes = vec![0; MEMORY_BYTES];
    let ram = vm.ram().expect("it has not stopped");
    ram.memory().read_slice(&mut bytes, GuestAddress(0)).expect("read");
    bytes
}

/// Pages that have been given back, by whichever means.
fn count_folded(host: &Host) -> u64 {
    let events = host.dedup().stats().expect("statistics").events;
    events.merges + events.remerges + events.zero_discards
}

fn first_difference(one: &[u8], other: &[u8]) -> Option<(usize, usize)> {
    assert_eq!(one.len(), other.len());
    let page = one.chunks(PAGE_SIZE).zip(other.chunks(PAGE_SIZE)).position(|(a, b)| a != b)?;
    let pages = page * PAGE_SIZE..(page + 1) * PAGE_SIZE;
    let (one, other) = (&one[pages.clone()], &other[pages]);
    one.iter().zip(other).position(|(a, b)| a != b).map(|offset| (page, offset))
}
