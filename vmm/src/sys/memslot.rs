//! Giving guest memory to KVM.

use std::io;
use std::sync::Arc;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;

use super::dirty_log;
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
    /// them, with its writes logged from the beginning if `log_writes` is set.
    pub(crate) fn new(fd: VmFd, ram: Arc<GuestRam>, log_writes: bool) -> io::Result<Self> {
        let vm = Self { fd, ram };
        dirty_log::clear_by_hand(&vm.fd)?;
        vm.set_slots(log_writes)?;
        Ok(vm)
    }

    /// Has KVM log from now on what is written to the memory, or stop doing so. The vCPUs may be
    /// running.
    ///
    /// # Errors
    ///
    /// The kernel's; some of the slots may have been changed.
    pub(crate) fn log_writes(&self, log_writes: bool) -> io::Result<()> {
        self.set_slots(log_writes)
    }

    /// Makes the slots, or changes the flags of those that there are: with the same addresses and
    /// size that is all KVM does (KVM API section 4.35).
    fn set_slots(&self, log_writes: bool) -> io::Result<()> {
        for (slot, region) in (0..).zip(self.ram.regions()) {
            let slot = kvm_userspace_memory_region {
                slot,
                flags: if log_writes { KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
                guest_phys_addr: region.gpa.0,
                memory_size: region.len_bytes(),
                userspace_addr: region.host_addr as u64,
            };
            // SAFETY: KVM will write to the host range whenever a vCPU runs, so the range must be
            // memory that nothing else is put into meanwhile. It is a mapping owned by `self.ram`,
            // which outlives the descriptor (field order) and, by this type's contract, every vCPU;
            // and nobody holds Rust references into guest memory, only volatile accessors.
            unsafe { self.fd.set_user_memory_region(slot) }?;
        }
        Ok(())
    }

    /// Forgets what `words` name as written to the slot at `position`, from word `first_word` of its log on:
    /// what is written from now on is logged.
    ///
    /// # Errors
    ///
    /// The kernel's; nothing is forgotten.
    pub(crate) fn clear_log(
        &self,
        position: usize,
        first_word: usize,
        words: &[u64],
    ) -> io::Result<()> {
        let slot = u32::try_from(position).map_err(io::Error::other)?;
        let pages = self.ram.regions().get(position).map_or(0, |region| region.page_count);
        dirty_log::clear(&self.fd, slot, pages as usize, first_word, words)
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
