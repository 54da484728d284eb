//! Interrupt controllers in the kernel, and devices' lines to them.

use std::io;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::VmFd;
use pagefold_devices::Interrupt;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::layout;

/// Makes local APICs, an I/O APIC and timers of a VM that has no vCPU yet: HLT waits in the kernel from
/// now on, and vCPUs other than the first wait to be started by it.
///
/// # Errors
///
/// The kernel's; some may be there.
pub(crate) fn create_irqchip(vm: &VmFd) -> io::Result<()> {
    vm.set_identity_map_address(layout::IDENTITY_MAP)?;
    let tss = usize::try_from(layout::TSS).map_err(io::Error::other)?;
    vm.set_tss_address(tss)?;
    vm.create_irq_chip()?;
    // Kernels without kvm-clock measure other clocks by it.
    let config = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..kvm_pit_config::default() };
    Ok(vm.create_pit2(config)?)
}

/// The line of a device to the interrupt controllers: a descriptor, on whose events KVM raises an interrupt.
#[derive(Debug)]
pub(crate) struct IrqLine(EventFd);

impl IrqLine {
    /// A line that raises the edge-triggered interrupt `irq`.
    ///
    /// # Errors
    ///
    /// When there is no descriptor to spare, or the VM has no interrupt controllers.
    pub(crate) fn new(vm: &VmFd, irq: u32) -> io::Result<Self> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        vm.register_irqfd(&event, irq)?;
        Ok(Self(event))
    }
}

impl Interrupt for IrqLine {
    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}
