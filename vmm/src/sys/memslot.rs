//! Giving guest memory to KVM.

use std::io;
use std::sync::Arc;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;

use crate::memory::GuestRam;

/// A VM together with the memory that KVM may write on its behalf, which cannot be dropped before
/// the VM. vCPUs keep their VM alive inside the kernel, so whoever owns a vCPU must own this too.
#[derive(Debug)]
pub(crate) struct MappedVm {
    // Fields are dropped in this order: KVM's view of the memory goes before the memory.
    fd: VmFd,
    ram: Arc<GuestRam>,
}

impl MappedVm {
    /// Makes each region of `ram` a memory slot of `fd`, numbered as [`GuestRam::regions`] orders
    /// them, with its writes logged from the beginning.
    pub(crate) fn new(fd: VmFd, ram: Arc<GuestRam>) -> io::Result<Self> {
        let vm = Self { fd, ram };
        for (slot, region) in (0..).zip(vm.ram.regions()) {
            let slot = kvm_userspace_memory_region {
                slot,
                flags: KVM_MEM_LOG_DIRTY_PAGES,
                guest_phys_addr: region.guest_address.0,
                memory_size: region.len_bytes(),
                userspace_addr: region.host_address as u64,
            };
            // SAFETY: KVM will write to the host range whenever a vCPU runs, so the range must be
            // memory that nothing else is put into meanwhile. It is a mapping owned by `vm.ram`,
            // which outlives the descriptor (field order) and, by this type's contract, every vCPU;
            // and nobody holds Rust references into guest memory, only volatile accessors.
            unsafe { vm.fd.set_user_memory_region(slot) }?;
        }
        Ok(vm)
    }

    /// The VM's descriptor.
    pub(crate) fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// The VM's memory.
    pub(crate) fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }
}
