//! The processor, as a guest sees it: what KVM supports, less what is masked here, and a topology of as many
//! cores as there are vCPUs.
//!
//! Source: the processors' manuals (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E).

use std::io;

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use crate::kvm::{FEATURES, OpenKvm, TOPOLOGY, TOPOLOGY_V2};

/// A register that CPUID writes.
#[derive(Debug, Clone, Copy)]
enum Register {
    Ebx,
    Ecx,
    Edx,
}
use Register::{Ebx, Ecx, Edx};

const STRUCTURED_FEATURES: u32 = 7;
const PERFORMANCE_MONITORING: u32 = 0xa;
const EXTENDED_FEATURES: u32 = 0x8000_0001;
const EXTENDED_SIZES: u32 = 0x8000_0008;
const EXTENDED_TOPOLOGY: u32 = 0x8000_001e;
const EXTENDED_PERFORMANCE_MONITORING: u32 = 0x8000_0022;

/// Bits that no guest sees, and why.
const MASKED: [(u32, Register, u32, &str); 9] = [
    (FEATURES, Ecx, 5, "VMX: guests of guests are not offered"),
    (EXTENDED_FEATURES, Ecx, 2, "SVM: as VMX"),
    (
        FEATURES,
        Edx,
        28,
        "hyper-threading: every vCPU is a core of its own; set below where there are several",
    ),
    (STRUCTURED_FEATURES, Ebx, 2, "SGX: enclaves' memory is not the VM's"),
    (STRUCTURED_FEATURES, Ebx, 25, "processor trace: it shows one VM's branches to another"),
    (FEATURES, Ecx, 15, "PDCM: what counters can do, of which there are none"),
    (EXTENDED_FEATURES, Ecx, 23, "counters of a core: they would show one VM's work to another"),
    (EXTENDED_FEATURES, Ecx, 24, "counters of a northbridge: as those of a core"),
    (EXTENDED_FEATURES, Ecx, 28, "counters of a last-level cache: as those of a core"),
];

/// Bits that every guest sees.
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
const SEVERAL_PROCESSORS: u32 = 1 << 28;

/// What leaf 0xb says of a level.
const THREADS: u32 = 1;
const CORES: u32 = 2;

/// The CPUID of vCPU `number` of `vcpus`.
///
/// # Errors
///
/// When KVM supports so much that there is no room for the topology.
pub(crate) fn cpuid(kvm: &OpenKvm, number: u32, vcpus: u32) -> io::Result<CpuId> {
    let mut entries: Vec<kvm_cpuid_entry2> = kvm.cpuid_of(number).as_slice().to_vec();
    // Levels are written anew below.
    entries.retain(|entry| ![TOPOLOGY, TOPOLOGY_V2].contains(&entry.function));
    for entry in &mut entries {
        for (_, register, bit, _) in MASKED.iter().filter(|(leaf, ..)| *leaf == entry.function) {
            let register = match register {
                Ebx => &mut entry.ebx,
                Ecx => &mut entry.ecx,
                Edx => &mut entry.edx,
            };
            *register &= !(1 << bit);
        }
        describe(entry, number, vcpus, kvm.has_tsc_deadline());
    }
    entries.extend(levels(number, vcpus));
    CpuId::from_entries(&entries).map_err(|_| io::Error::other("too many entries"))
}

/// Says in an entry how many processors there are, which of them this is, and what KVM does for it.
fn describe(entry: &mut kvm_cpuid_entry2, number: u32, vcpus: u32, has_tsc_deadline: bool) {
    match entry.function {
        FEATURES => {
            entry.ecx |= HYPERVISOR | if has_tsc_deadline { TSC_DEADLINE } else { 0 };
            let logical = vcpus.next_power_of_two().min(0xff) << 16;
            entry.ebx = (entry.ebx & !0x00ff_0000) | logical;
            entry.edx |= if vcpus > 1 { SEVERAL_PROCESSORS } else { 0 };
        }
        // Counters would show one VM's work to another.
        PERFORMANCE_MONITORING | EXTENDED_PERFORMANCE_MONITORING => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        // Cores less one, and how many bits of the APIC id tell them apart.
        EXTENDED_SIZES => entry.ecx = (vcpus - 1) | (id_bits(vcpus) << 12),
        EXTENDED_TOPOLOGY => (entry.eax, entry.ebx, entry.ecx) = (number, number, 0),
        _ => {}
    }
}

/// The levels of the topology: one thread a core, and cores.
fn levels(number: u32, vcpus: u32) -> impl Iterator<Item = kvm_cpuid_entry2> {
    let level = move |index: u32, kind: u32, shift: u32, count: u32| kvm_cpuid_entry2 {
        function: TOPOLOGY,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: index | (kind << 8),
        edx: number,
        ..kvm_cpuid_entry2::default()
    };
    let end = level(2, 0, 0, 0);
    [level(0, THREADS, 0, 1), level(1, CORES, id_bits(vcpus), vcpus), end].into_iter()
}

/// How many bits number so many vCPUs.
fn id_bits(vcpus: u32) -> u32 {
    vcpus.next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        let is_it = |entry: &&kvm_cpuid_entry2| entry.function == function && entry.index == index;
        *cpuid.as_slice().iter().find(is_it).unwrap()
    }

    #[test]
    fn each_vcpu_is_a_core_with_an_id_of_its_own() {
        let kvm = OpenKvm::new().unwrap();
        for (number, vcpus, bits) in [(0, 1, 0), (1, 2, 1), (2, 3, 2), (31, 32, 5)] {
            let cpuid = cpuid(&kvm, number, vcpus).unwrap();
            assert_eq!(leaf(&cpuid, FEATURES, 0).ebx >> 24, number);
            assert_eq!(leaf(&cpuid, FEATURES, 0).edx & SEVERAL_PROCESSORS != 0, vcpus > 1);
            let (threads, cores) = (leaf(&cpuid, TOPOLOGY, 0), leaf(&cpuid, TOPOLOGY, 1));
            assert_eq!(
                (threads.eax, threads.ebx, threads.ecx >> 8, threads.edx),
                (0, 1, 1, number)
            );
            assert_eq!((cores.eax, cores.ebx, cores.ecx >> 8, cores.edx), (bits, vcpus, 2, number));
        }
    }

    #[test]
    fn no_leaf_describes_counters() {
        for function in [PERFORMANCE_MONITORING, EXTENDED_PERFORMANCE_MONITORING] {
            let mut entry = kvm_cpuid_entry2 {
                function,
                eax: 1,
                ebx: 2,
                ecx: 3,
                edx: 4,
                ..kvm_cpuid_entry2::default()
            };
            describe(&mut entry, 0, 1, false);
            assert_eq!(entry, kvm_cpuid_entry2 { function, ..kvm_cpuid_entry2::default() });
        }
    }

    #[test]
    fn masked_bits_are_not_seen_and_the_hypervisor_is() {
        let kvm = OpenKvm::new().unwrap();
        let cpuid = cpuid(&kvm, 0, 1).unwrap();
        for (function, register, bit, why) in MASKED {
            for entry in cpuid.as_slice().iter().filter(|entry| entry.function == function) {
                let register = match register {
                    Ebx => entry.ebx,
                    Ecx => entry.ecx,
                    Edx => entry.edx,
                };
                assert_eq!(register & 1 << bit, 0, "{why}");
            }
        }
        assert_ne!(leaf(&cpuid, FEATURES, 0).ecx & HYPERVISOR, 0);
    }
}
