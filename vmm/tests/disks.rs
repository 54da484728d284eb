//! Disks of VMs: who may use one, and until when.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{PATIENCE, host};
use pagefold::config::DiskConfig;
use pagefold::{BuildError, Guest, Host, LinuxGuest, PcDevices, StopReason, VmConfig, VmHandle};
use pagefold_dedup::{Classified, DedupMode, ErrorClass};

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
    fs::write(&path, bytes).expect("a kernel");
    path
}

fn config(folder: &Path, disks: &[(&str, bool)]) -> VmConfig {
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

fn build(host: &Host, config: VmConfig) -> VmHandle {
    host.vm(config).build().expect("a VM")
}

#[test]
fn a_disk_that_is_written_is_one_vms_until_that_ends() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("disk"), [0; 4096]).unwrap();
    let host = host();
    let written = config(folder.path(), &[("disk", false)]);
    let first = build(&host, written.clone());
    let error = host.vm(written.clone()).build().unwrap_err();
    assert!(matches!(error, BuildError::Disk(_)) && error.class() == ErrorClass::Busy, "{error}");
    assert!(written.check().is_err());
    // Its handle, which goes on answering, keeps no file.
    assert_eq!(first.stop(), StopReason::Requested);
    build(&host, written);
    assert_eq!(host.vms().len(), 2);
}

#[test]
fn vms_share_disks_that_they_only_read_and_end_with_their_host() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["root", "own"] {
        fs::write(folder.path().join(name), [0; 4096]).unwrap();
    }
    let host = host();
    let vms = [
        build(&host, config(folder.path(), &[("root", true), ("own", false)])),
        build(&host, config(folder.path(), &[("root", true)])),
    ];
    let twice = config(folder.path(), &[("root", true), ("root", true)]);
    assert!(twice.check().is_ok());
    let both = config(folder.path(), &[("root", true), ("root", false)]);
    assert!(both.check().unwrap_err().to_string().contains("is in use"));
    drop(host);
    assert!(vms.iter().all(|vm| vm.wait(PATIENCE) == Some(StopReason::Requested)));
    // Though there are handles still.
    assert!(config(folder.path(), &[("root", false), ("own", false)]).check().is_ok());
}

#[test]
fn more_disks_than_there_is_room_for_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("disk"), [0; 512]).unwrap();
    let host = host();
    let vm = |count| config(folder.path(), &vec![("disk", true); count]);
    // With the entropy source there are 19.
    drop(build(&host, vm(18)));
    let error = host.vm(vm(19)).build().unwrap_err();
    assert!(matches!(error, BuildError::VirtioDevices { wanted: 20, max: 19 }), "{error}");
}
