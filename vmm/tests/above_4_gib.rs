//! Memory above the hole for devices.

// A failure here is a failure of its test.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Instant;

use common::PATIENCE;
use pagefold::config::{BuiltinGuest, DedupMode, FlatImage, Guest, Privilege, VmConfig};
use pagefold::dedup::{LinearIndex, PageState};
use pagefold::memory::{HOLE_END, HOLE_START};
use pagefold::{BuildError, Host, HostConfig, Preset, VmHandle};
use vm_memory::{Bytes, GuestAddress};

const PAGE_BYTES: u64 = 4096;

/// How many pages from 4 GiB on [`WRITER`] writes.
const COUNT: u64 = 512;

/// Maps the 2 MiB from 4 GiB on, writes into each of their pages its address, and sleeps.
#[rustfmt::skip]
const WRITER: &[u8] = &[
    0x48, 0xc7, 0x04, 0x25, 0x20, 0x10, 0x01, 0x00, // mov qword [0x11020], …
    0x07, 0x50, 0x01, 0x00,                         //   0x15007: the fifth GiB's directory
    0x48, 0xb8, 0x87, 0, 0, 0, 1, 0, 0, 0,          // mov rax, 0x100000087: a 2 MiB page
    0x48, 0x89, 0x04, 0x25, 0x00, 0x50, 0x01, 0x00, // mov [0x15000], rax
    0x48, 0xb8, 0, 0, 0, 0, 1, 0, 0, 0,             // mov rax, 0x100000000
    0xb9, 0x00, 0x02, 0x00, 0x00,                   // mov ecx, 512
    0x48, 0x89, 0x00,                               // mov [rax], rax
    0x48, 0x05, 0x00, 0x10, 0x00, 0x00,             // add rax, 0x1000
    0xff, 0xc9,                                     // dec ecx
    0x75, 0xf3,                                     // jnz -13
    0x66, 0xba, 0x00, 0x05,                         // mov dx, 0x500
    0xb8, 0x00, 0xd2, 0x49, 0x6b,                   // mov eax, 1_800_000_000
    0xef,                                           // out dx, eax
    0xeb, 0xf4,                                     // jmp -12
];

fn read(vm: &VmHandle, address: u64) -> u64 {
    vm.ram().unwrap().memory().read_obj(GuestAddress(address)).unwrap()
}

#[test]
fn pages_above_the_hole_are_the_guests_and_are_shared() {
    let host = Host::new(HostConfig { overcommit: true, ..HostConfig::default() }).unwrap();
    let vms = [0, 1].map(|_| {
        let guest = FlatImage { code: WRITER.to_vec(), privilege: Privilege::Kernel };
        let config = VmConfig {
            memory_bytes: HOLE_START + (8 << 20),
            vcpus: 1,
            guest: Guest::Flat(guest),
            dedup: DedupMode::On,
            name: None,
        };
        let vm = host.vm(config).build().unwrap();
        vm.start().unwrap();
        vm
    });
    let addresses = || (0..COUNT).map(|page| HOLE_END + page * PAGE_BYTES);
    let end = Instant::now() + PATIENCE;
    for vm in &vms {
        while read(vm, HOLE_END + (COUNT - 1) * PAGE_BYTES) == 0 {
            assert!(Instant::now() < end, "{:?}", vm.status());
            std::thread::yield_now();
        }
    }
    assert!(host.dedup().settle(PATIENCE).unwrap().settled);
    for vm in &vms {
        for (page, address) in (0..).zip(addresses()) {
            assert_eq!(read(vm, address), address);
            let explanation = vm.explain(address).unwrap();
            assert!(matches!(explanation.state, PageState::Shared(_)), "{explanation:?}");
            let below = u32::try_from(HOLE_START / PAGE_BYTES).unwrap();
            assert_eq!(explanation.linear, LinearIndex(below + page));
            assert_eq!(explanation.mappings[0].gpa, address);
        }
        assert!(vm.explain(HOLE_START).is_err());
        assert!(vm.set_mergeable(HOLE_START - PAGE_BYTES, 2 * PAGE_BYTES, false).is_err());
        vm.set_mergeable(HOLE_END, PAGE_BYTES, false).unwrap();
    }
    assert!(host.dedup().stats().unwrap().pages_sharing >= COUNT - 1);
}

#[test]
fn the_built_in_guest_refuses_memory_that_it_could_not_use() {
    let host = Host::new(HostConfig { overcommit: true, ..HostConfig::default() }).unwrap();
    let guest = BuiltinGuest { preset: Preset::Idle, vm_number: 0, seed: 7 };
    let config = VmConfig::builtin(HOLE_START + PAGE_BYTES, guest);
    for error in [config.check().unwrap_err(), host.vm(config.clone()).build().unwrap_err()] {
        assert!(matches!(error, BuildError::Builtin(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("at most 3072 MiB") && text.contains("above 4 GiB"), "{text}");
    }
    assert!(host.vms().is_empty());
    assert!(VmConfig::builtin(HOLE_START, guest).check().is_ok());
}
