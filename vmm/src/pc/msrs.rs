//! Model-specific registers that firmware sets.

use std::io;

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

/// `IA32_MISC_ENABLE`, of which bit 0 allows fast string operations.
const MISC_ENABLE: (u32, u64) = (0x1a0, 1);

/// `IA32_MTRR_DEF_TYPE`: MTRRs are on, and what none of them covers is write-back.
const MTRR_DEF_TYPE: (u32, u64) = (0x2ff, 1 << 11 | 6);

/// Sets them.
///
/// # Errors
///
/// The kernel's; some may be set.
pub(crate) fn set_msrs(vcpu: &VcpuFd) -> io::Result<()> {
    let entries = [MISC_ENABLE, MTRR_DEF_TYPE].map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    });
    let msrs = Msrs::from_entries(&entries).map_err(|_| io::ErrorKind::InvalidInput)?;
    let set_count = vcpu.set_msrs(&msrs)?;
    match entries.get(set_count) {
        None => Ok(()),
        Some(refused) => Err(io::Error::other(format!("MSR {:#x} was refused", refused.index))),
    }
}
