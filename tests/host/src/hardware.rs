//! Whether KVM has hardware virtualization here.

use std::fs;
use std::path::Path;

/// Whether KVM runs guests by VMX or SVM on this machine, so that no host need be emulated.
pub fn has_hardware_virtualization() -> bool {
    let modules = ["kvm_intel", "kvm_amd"];
    let is_loaded = |module: &&str| Path::new("/sys/module").join(module).exists();
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    Path::new("/dev/kvm").exists() && modules.iter().any(is_loaded) && has_flag(&flags)
}

/// Whether a processor says that it has VMX or SVM.
fn has_flag(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_the_processor_decide() {
        assert!(has_flag("processor\t: 0\nflags\t\t: fpu svm sse\n"));
        assert!(has_flag("flags\t\t: vmx\n"));
        assert!(!has_flag("processor\t: 0\nflags\t\t: fpu svmx\nbugs\t: vmx\n"));
        assert!(!has_flag(""));
    }
}
