//! What these tests share: a host, and tiny guests.

// Each test program uses its own part of it, and a failure here is a failure of its test.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pagefold::config::{
    BuiltinGuest, DedupMode, DiskConfig, FlatImage, Guest, LinuxGuest, PcDevices, Privilege,
    VmConfig,
};
use pagefold::{Host, HostConfig, VmHandle};
use pagefold_guest::workload::Preset;
use vm_memory::{Bytes, GuestAddress};

/// Longer than anything here takes: only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Where [`COUNTER`] counts.
const COUNT_AT: GuestAddress = GuestAddress(0x20_0000);

/// Counts in memory, for ever.
#[rustfmt::skip]
pub(crate) const COUNTER: &[u8] = &[
    0x48, 0xff, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, // inc qword [0x200000]
    0xeb, 0xf6,                                     // jmp -10
];

/// Counts in memory, and touches a port each time.
#[rustfmt::skip]
pub(crate) const TOUCHER: &[u8] = &[
    0x48, 0xff, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, // inc qword [0x200000]
    0xe6, 0x80,                                     // out 0x80, al
    0xeb, 0xf4,                                     // jmp -12
];

/// Sleeps for half an hour, then exits with what CONTROL reads; sleeps again if that is 0.
#[rustfmt::skip]
pub(crate) const SLEEPER: &[u8] = &[
    0x66, 0xba, 0x00, 0x05,       // mov dx, 0x500
    0xb8, 0x00, 0xd2, 0x49, 0x6b, // mov eax, 1_800_000_000
    0xef,                         // out dx, eax
    0x66, 0xba, 0x04, 0x05,       // mov dx, 0x504
    0xed,                         // in eax, dx
    0x85, 0xc0,                   // test eax, eax
    0x74, 0xed,                   // jz -19
    0x66, 0xba, 0x08, 0x05,       // mov dx, 0x508
    0xef,                         // out dx, eax
    0xeb, 0xfe,                   // jmp -2
];

/// Exits with `code`.
pub(crate) fn exiter(code: u32) -> Vec<u8> {
    let mut bytes = vec![0x66, 0xba, 0x08, 0x05, 0xb8]; // mov dx, 0x508; mov eax, …
    bytes.extend(code.to_le_bytes());
    bytes.extend([0xef, 0xeb, 0xfe]); // out dx, eax; jmp -2
    bytes
}

/// Prints `text` with one string instruction, and then exits with code 0.
pub(crate) fn printer(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
    bytes.push(0xb9); // mov ecx, …
    bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    let exit = exiter(0);
    bytes.extend([0x48, 0x8d, 0x35]); // lea rsi, [rip + …]
    bytes.extend(u32::try_from(2 + exit.len()).unwrap().to_le_bytes());
    bytes.extend([0xf3, 0x6e]); // rep outsb
    bytes.extend(exit);
    bytes.extend(text.as_bytes());
    bytes
}

pub(crate) fn host() -> Host {
    Host::new(HostConfig::default()).unwrap()
}

pub(crate) fn flat(host: &Host, code: &[u8], privilege: Privilege) -> VmHandle {
    host.vm(VmConfig {
        memory_bytes: 4 << 20,
        vcpus: 1,
        guest: Guest::Flat(FlatImage { code: code.to_vec(), privilege }),
        dedup: DedupMode::Off,
        name: None,
    })
    .build()
    .unwrap()
}

pub(crate) fn user(host: &Host, code: &[u8]) -> VmHandle {
    flat(host, code, Privilege::User)
}

pub(crate) fn builtin(host: &Host, preset: Preset, vm_number: u32) -> VmHandle {
    let guest = BuiltinGuest { preset, vm_number, seed: 7 };
    host.vm(VmConfig { dedup: DedupMode::Off, ..VmConfig::builtin(16 << 20, guest) })
        .build()
        .unwrap()
}

/// Where a guest that counts has come to.
pub(crate) fn count(vm: &VmHandle) -> u64 {
    vm.ram().unwrap().memory().read_obj(COUNT_AT).unwrap()
}

/// Waits until a guest that counts has gone on by `steps`.
pub(crate) fn wait_for_progress(vm: &VmHandle, steps: u64) {
    let end = std::time::Instant::now() + PATIENCE;
    let goal = count(vm) + steps;
    while count(vm) < goal {
        assert!(std::time::Instant::now() < end, "VM {} makes no progress", vm.id());
        std::thread::yield_now();
    }
}

/// A bzImage that could be loaded, with nothing in it that runs.
fn kernel(folder: &Path) -> PathBuf {
    let mut bytes = vec![0; 4096];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    // Of the setup header: one sector, "HdrS", version 2.15, loaded high, 64-bit, 16 MiB and as much after that.
    put(0x1f1, &[1]);
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS");
    put(0x206, &[0x0f, 0x02]);
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &[1, 0]);
    put(0x238, &100_u32.to_le_bytes());
    put(0x258, &(16_u64 << 20).to_le_bytes());
    put(0x260, &(4_u32 << 20).to_le_bytes());
    let path = folder.join("kernel");
    fs::write(&path, bytes).unwrap();
    path
}

/// A VM that could boot Linux from a kernel in `folder`, with an entropy source, and files there for disks: each with
/// whether it is only read.
pub(crate) fn with_disks(folder: &Path, disks: &[(&str, bool)]) -> VmConfig {
    let disk = |&(name, readonly): &(&str, bool)| DiskConfig { path: folder.join(name), readonly };
    VmConfig {
        memory_bytes: 64 << 20,
        vcpus: 1,
        guest: Guest::Linux(LinuxGuest {
            kernel: kernel(folder),
            initrd: None,
            cmdline: String::new(),
            devices: PcDevices { rng: true, disks: disks.iter().map(disk).collect() },
        }),
        dedup: DedupMode::Off,
        name: None,
    }
}
