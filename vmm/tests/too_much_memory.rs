//! More memory than the host has. Alone in its program: what is set aside counts for all of its VMs.

// A failure here is a failure of its test.
#![allow(clippy::unwrap_used)]

use pagefold::config::{DedupMode, FlatImage, Guest, Privilege, VmConfig};
use pagefold::{BuildError, Classified, ErrorClass, Host, HostConfig};

#[test]
fn more_vms_than_the_host_has_memory_for_are_refused() {
    let build_all = |overcommit| {
        let host = Host::new(HostConfig { overcommit, ..HostConfig::default() }).unwrap();
        let code = FlatImage { code: vec![0xf4], privilege: Privilege::Kernel };
        let config = VmConfig {
            memory_bytes: 3 << 30,
            vcpus: 1,
            guest: Guest::Flat(code),
            dedup: DedupMode::Off,
            name: None,
        };
        let total = std::fs::read_to_string("/proc/meminfo").unwrap();
        let kib: u64 = total.split_whitespace().nth(1).unwrap().parse().unwrap();
        let count = kib / (3 << 20) + 1;
        (0..count).try_for_each(|_| host.vm(config.clone()).build().map(drop))
    };
    let error = build_all(false).unwrap_err();
    assert!(matches!(error, BuildError::HostMemory(_)), "{error}");
    assert_eq!(error.class(), ErrorClass::Host);
    build_all(true).unwrap();
}
