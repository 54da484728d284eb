//! What the tests in `tests/host` stand on.

use std::fs;
use std::path::Path;

#[test]
#[ignore = "needs hardware virtualization: `make host-tests` runs it, in an emulated host if need be"]
fn kvm_runs_guests_by_hardware_virtualization_with_nested_page_tables() {
    let modules = [("kvm_amd", "npt"), ("kvm_intel", "ept")];
    let nested = modules.into_iter().find_map(|(module, parameter)| {
        let path = Path::new("/sys/module").join(module).join("parameters").join(parameter);
        fs::read_to_string(path).ok()
    });
    assert_eq!(nested.as_deref().map(str::trim), Some("Y"), "no kvm_amd and no kvm_intel");
    assert!(!Path::new("/sys/module/kvm_pvm").exists(), "KVM-PVM executes CPL 3 natively only");
}
