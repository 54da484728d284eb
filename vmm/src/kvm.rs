//! Opening /dev/kvm.

use std::io;

use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};

/// The CPUID leaf whose EAX has the number of physical address bits in its low byte.
const ADDRESS_SIZES: u32 = 0x8000_0008;

/// The CPUID leaf whose EBX has the initial APIC id in its high byte.
pub(crate) const FEATURES: u32 = 1;

/// The CPUID leaves whose EDX is the x2APIC id.
pub(crate) const TOPOLOGY: u32 = 0xb;
pub(crate) const TOPOLOGY_V2: u32 = 0x1f;

/// Physical address bits of processors without that leaf (SDM volume 3, 4.1.4).
const LEAST_PHYSICAL_BITS: u32 = 36;

/// Why KVM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenKvmError {
    /// There is no such device.
    #[error(
        "there is no /dev/kvm: load the module for this processor (modprobe kvm_intel or kvm_amd), \
         turn on virtualization in the firmware, or, inside a VM, nested virtualization; in a \
         container, pass the device in"
    )]
    Missing(#[source] io::Error),
    /// This user may not open it.
    #[error(
        "no permission to use /dev/kvm: add the user to the group that owns it (usually: usermod -aG \
         kvm USER, then log in again), or run as root"
    )]
    NoPermission(#[source] io::Error),
    /// It cannot be opened for another reason.
    #[error("cannot open /dev/kvm")]
    Open(#[source] io::Error),
    /// Its API has another version.
    #[error(
        "KVM has API version {found}, and version {KVM_API_VERSION} is needed: use Linux 2.6.22 or later"
    )]
    ApiVersion {
        /// The version there is.
        found: i32,
    },
    /// It lacks something.
    #[error("this KVM lacks {capability}, which is needed to {purpose}: use a newer kernel")]
    MissingCapability {
        /// Its name in the KVM API.
        capability: &'static str,
        /// What for.
        purpose: &'static str,
    },
    /// It does not report what processor it offers.
    #[error("cannot ask KVM which CPUID it supports")]
    Cpuid(#[source] io::Error),
}

/// KVM, and the processor it offers.
#[derive(Debug)]
pub(crate) struct OpenKvm {
    pub(crate) kvm: Kvm,
    cpuid: CpuId,
}

impl OpenKvm {
    /// Opens and checks it.
    pub(crate) fn new() -> Result<Self, OpenKvmError> {
        let kvm = Kvm::new().map_err(|error| why_not_open(error.into()))?;
        check_version(kvm.get_api_version())?;
        for (cap, capability, purpose) in [
            (Cap::UserMemory, "KVM_CAP_USER_MEMORY", "give a guest memory"),
            (Cap::SyncMmu, "KVM_CAP_SYNC_MMU", "replace a guest's pages while it runs"),
        ] {
            if !kvm.check_extension(cap) {
                return Err(OpenKvmError::MissingCapability { capability, purpose });
            }
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|error| OpenKvmError::Cpuid(error.into()))?;
        Ok(Self { kvm, cpuid })
    }

    /// How many vCPUs a VM can have.
    pub(crate) fn max_vcpus(&self) -> u32 {
        u32::try_from(self.kvm.get_max_vcpus()).unwrap_or(u32::MAX)
    }

    /// The CPUID of a VM's vCPU `number`: what KVM supports names the local APIC of the
    /// processor on which it was read, and no two vCPUs may have the same.
    pub(crate) fn cpuid_of(&self, number: u32) -> CpuId {
        let mut cpuid = self.cpuid.clone();
        for leaf in cpuid.as_mut_slice() {
            match leaf.function {
                FEATURES => leaf.ebx = (leaf.ebx & 0x00ff_ffff) | (number << 24),
                TOPOLOGY | TOPOLOGY_V2 => leaf.edx = number,
                _ => {}
            }
        }
        cpuid
    }

    /// Whether local APICs in the kernel have timers that wait for a time-stamp.
    pub(crate) fn has_tsc_deadline(&self) -> bool {
        self.kvm.check_extension(Cap::TscDeadlineTimer)
    }

    /// How many bits a guest-physical address has.
    pub(crate) fn physical_bits(&self) -> u32 {
        let leaf = |number| self.cpuid.as_slice().iter().find(|leaf| leaf.function == number);
        leaf(ADDRESS_SIZES).map_or(LEAST_PHYSICAL_BITS, |leaf| leaf.eax & 0xff)
    }
}

fn check_version(found: i32) -> Result<(), OpenKvmError> {
    if u32::try_from(found) == Ok(KVM_API_VERSION) {
        Ok(())
    } else {
        Err(OpenKvmError::ApiVersion { found })
    }
}

fn why_not_open(error: io::Error) -> OpenKvmError {
    match error.raw_os_error() {
        // The node can be there without a driver behind it.
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => OpenKvmError::Missing(error),
        Some(libc::EACCES | libc::EPERM) => OpenKvmError::NoPermission(error),
        _ => OpenKvmError::Open(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(errno: i32) -> OpenKvmError {
        why_not_open(io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn a_guest_can_address_at_least_what_every_processor_can() {
        let bits = OpenKvm::new().unwrap().physical_bits();
        assert!((LEAST_PHYSICAL_BITS..=52).contains(&bits), "{bits}");
    }

    #[test]
    fn each_vcpu_has_an_apic_id_of_its_own_and_the_same_features() {
        let kvm = OpenKvm::new().unwrap();
        let features = |number| {
            let cpuid = kvm.cpuid_of(number);
            cpuid.as_slice().iter().find(|leaf| leaf.function == FEATURES).copied().unwrap()
        };
        let (first, third) = (features(0), features(2));
        assert_eq!((first.ebx >> 24, third.ebx >> 24), (0, 2));
        assert_eq!((first.ebx << 8, first.ecx, first.edx), (third.ebx << 8, third.ecx, third.edx));
    }

    #[test]
    fn each_cause_has_its_own_advice() {
        assert!(error(libc::ENOENT).to_string().contains("modprobe"));
        assert!(error(libc::ENODEV).to_string().contains("modprobe"));
        assert!(error(libc::EACCES).to_string().contains("usermod"));
        assert!(matches!(error(libc::EMFILE), OpenKvmError::Open(_)));
        let error = check_version(11).unwrap_err();
        assert!(error.to_string().contains("version 11"), "{error}");
        assert!(check_version(-1).is_err());
        assert!(check_version(12).is_ok());
    }
}
