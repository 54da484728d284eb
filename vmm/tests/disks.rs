//! Disks of VMs: who may use one, and until when.

mod common;

use std::fs;

use common::{PATIENCE, host, with_disks};
use pagefold::{BuildError, Host, StopReason, VmConfig, VmHandle};
use pagefold_dedup::{Classified, ErrorClass};

fn build(host: &Host, config: VmConfig) -> VmHandle {
    host.vm(config).build().expect("a VM")
}

#[test]
fn a_disk_that_is_written_is_one_vms_until_that_ends() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("disk"), [0; 4096]).unwrap();
    let host = host();
    let written = with_disks(folder.path(), &[("disk", false)]);
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
        build(&host, with_disks(folder.path(), &[("root", true), ("own", false)])),
        build(&host, with_disks(folder.path(), &[("root", true)])),
    ];
    let twice = with_disks(folder.path(), &[("root", true), ("root", true)]);
    assert!(twice.check().is_ok());
    let both = with_disks(folder.path(), &[("root", true), ("root", false)]);
    assert!(both.check().unwrap_err().to_string().contains("is in use"));
    drop(host);
    assert!(vms.iter().all(|vm| vm.wait(PATIENCE) == Some(StopReason::Requested)));
    // Though there are handles still.
    assert!(with_disks(folder.path(), &[("root", false), ("own", false)]).check().is_ok());
}

#[test]
fn more_disks_than_there_is_room_for_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("disk"), [0; 512]).unwrap();
    let host = host();
    let vm = |count| with_disks(folder.path(), &vec![("disk", true); count]);
    // With the entropy source there are 19.
    drop(build(&host, vm(18)));
    let error = host.vm(vm(19)).build().unwrap_err();
    assert!(matches!(error, BuildError::VirtioDevices { wanted: 20, max: 19 }), "{error}");
}
