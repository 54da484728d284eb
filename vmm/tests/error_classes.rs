//! Who can do something about a VM that could not be made is in the error's class (`too_much_memory.rs` has the host's).

// A failure here is a failure of its test.
#![allow(clippy::unwrap_used)]

use pagefold::{BuiltinGuest, Classified, ErrorClass, Host, HostConfig, Preset, VmConfig};

#[test]
fn a_vm_that_makes_no_sense_is_the_callers_matter() {
    let host = Host::new(HostConfig::default()).unwrap();
    let guest = BuiltinGuest { preset: Preset::Idle, vm_number: 0, seed: 1 };
    let class = |config| host.vm(config).build().unwrap_err().class();
    let fine = VmConfig::builtin(16 << 20, guest);
    assert_eq!(class(VmConfig { name: Some(String::new()), ..fine.clone() }), ErrorClass::Caller);
    assert_eq!(class(VmConfig { memory_bytes: 4097, ..fine.clone() }), ErrorClass::Caller);
    assert_eq!(class(VmConfig { vcpus: 0, ..fine }), ErrorClass::Caller);
}
