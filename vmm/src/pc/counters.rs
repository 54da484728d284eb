//! Performance counters, which no guest has: they would show one VM's work to another.

use std::io;

use kvm_bindings::{KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE, kvm_enable_cap};
use kvm_ioctls::VmFd;

/// Takes away, from a VM that has no vCPU yet, those that CPUID does not describe either: processors of AMD
/// have four that kernels use unasked.
///
/// # Errors
///
/// The kernel's; they are as they were.
pub(crate) fn disable_counters(vm: &VmFd) -> io::Result<()> {
    let offered = vm.check_extension_raw(KVM_CAP_PMU_CAPABILITY.into());
    // Linux before 5.18 does not offer it, and one that gives guests no counters anyway does not either.
    if offered.cast_unsigned() & KVM_PMU_CAP_DISABLE == 0 {
        return Ok(());
    }
    let mut cap = kvm_enable_cap { cap: KVM_CAP_PMU_CAPABILITY, ..kvm_enable_cap::default() };
    cap.args[0] = KVM_PMU_CAP_DISABLE.into();
    Ok(vm.enable_cap(&cap)?)
}

#[cfg(test)]
mod tests {
    use kvm_bindings::{Msrs, kvm_msr_entry};

    use super::*;
    use crate::kvm::OpenKvm;
    use crate::pc::cpuid;

    /// Selects what the first counter counts, as the architecture of AMD's and Intel's processors has it.
    const SELECTORS: [u32; 2] = [0xc001_0000, 0x186];
    /// Cycles, in all rings, from now on.
    const CYCLES: u64 = 0x43_0076;

    #[test]
    fn no_counter_can_be_made_to_count() {
        let kvm = OpenKvm::new().unwrap();
        let vm = kvm.kvm.create_vm().unwrap();
        disable_counters(&vm).unwrap();
        let vcpu = vm.create_vcpu(0).unwrap();
        vcpu.set_cpuid2(&cpuid(&kvm, 0, 1).unwrap()).unwrap();
        for index in SELECTORS {
            let entry = |data| kvm_msr_entry { index, data, ..kvm_msr_entry::default() };
            // Refused, or of no effect.
            let _ = vcpu.set_msrs(&Msrs::from_entries(&[entry(CYCLES)]).unwrap());
            let mut read = Msrs::from_entries(&[entry(0)]).unwrap();
            let _ = vcpu.get_msrs(&mut read);
            assert_eq!(read.as_slice()[0].data, 0, "{index:#x}");
        }
    }
}
