//! Why a guest was left.

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::sys::internal_error::InternalError;
use crate::sys::run_area::{self, MmioAccess, PortAccess};

/// Why a guest was left, as far as a decision depends on it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum VmExit<'a> {
    /// It reads from a port: `data` is to be filled, `width` bytes an access.
    PortRead { port: u16, width: usize, data: &'a mut [u8] },
    /// It writes to a port, `width` bytes an access.
    PortWrite { port: u16, width: usize, data: &'a [u8] },
    /// It reads where no memory is: `data` is to be filled.
    MmioRead { address: u64, data: &'a mut [u8] },
    /// It writes where no memory is.
    MmioWrite { address: u64, data: &'a [u8] },
    /// It did not: a signal is pending for this thread.
    Interrupted,
    /// It halts, with nothing that could wake it.
    Halt,
    /// A triple fault.
    Shutdown,
    /// It requests a reset, power-off or the like.
    SystemEvent { kind: u32 },
    /// The processor did not take its state.
    FailEntry { reason: u64, cpu: u32 },
    /// KVM gave up.
    InternalError(InternalError),
    /// It touched memory that the host does not give.
    MemoryFault { address: u64, len: u64 },
    /// `KVM_RUN` failed.
    RunFailed { errno: i32 },
    /// Something that was never requested of KVM.
    Unexpected(String),
}

/// What [`enter`] does next with an exit; the accesses lie in the `kvm_run` area.
enum Kind {
    Port,
    Mmio,
    Internal,
    Other(VmExit<'static>),
}

/// Runs the guest until it is left. `run_bytes` is the size of the `kvm_run` area.
pub(crate) fn enter(vcpu: &mut VcpuFd, run_bytes: usize) -> VmExit<'_> {
    // kvm-ioctls hides the width of a string access and the details of an internal error, so these
    // are read from the area itself once its own view of it has gone.
    let kind = match vcpu.run() {
        Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..)) => Kind::Port,
        Ok(VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..)) => Kind::Mmio,
        Ok(VcpuExit::InternalError) => Kind::Internal,
        Ok(exit) => Kind::Other(simple(&exit)),
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
            Kind::Other(VmExit::Interrupted)
        }
        Err(error) => Kind::Other(VmExit::RunFailed { errno: error.errno() }),
    };
    match kind {
        Kind::Port => run_area::port_access(vcpu, run_bytes).map(port_exit),
        Kind::Mmio => run_area::mmio_access(vcpu).map(mmio_exit),
        Kind::Internal => run_area::internal_error(vcpu).map(VmExit::InternalError),
        Kind::Other(exit) => Some(exit),
    }
    .unwrap_or_else(|| VmExit::Unexpected("an exit whose details make no sense".to_owned()))
}

fn port_exit(access: PortAccess<'_>) -> VmExit<'_> {
    let PortAccess { port, width, is_write, data } = access;
    if is_write {
        VmExit::PortWrite { port, width, data }
    } else {
        VmExit::PortRead { port, width, data }
    }
}

fn mmio_exit(access: MmioAccess<'_>) -> VmExit<'_> {
    let MmioAccess { address, is_write, data } = access;
    if is_write { VmExit::MmioWrite { address, data } } else { VmExit::MmioRead { address, data } }
}

/// An exit without an access.
fn simple(exit: &VcpuExit<'_>) -> VmExit<'static> {
    match *exit {
        VcpuExit::Intr => VmExit::Interrupted,
        VcpuExit::Hlt => VmExit::Halt,
        VcpuExit::Shutdown => VmExit::Shutdown,
        VcpuExit::SystemEvent(kind, _) => VmExit::SystemEvent { kind },
        VcpuExit::FailEntry(reason, cpu) => VmExit::FailEntry { reason, cpu },
        VcpuExit::MemoryFault { gpa, size, .. } => VmExit::MemoryFault { address: gpa, len: size },
        VcpuExit::Unsupported(number) => VmExit::Unexpected(format!("KVM exit {number}")),
        ref other => VmExit::Unexpected(format!("KVM exit {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_without_an_access_are_converted() {
        assert_eq!(simple(&VcpuExit::Intr), VmExit::Interrupted);
        assert_eq!(simple(&VcpuExit::Hlt), VmExit::Halt);
        assert_eq!(simple(&VcpuExit::Shutdown), VmExit::Shutdown);
        assert_eq!(simple(&VcpuExit::FailEntry(7, 1)), VmExit::FailEntry { reason: 7, cpu: 1 });
        assert_eq!(
            simple(&VcpuExit::MemoryFault { flags: 0, gpa: 0x1000, size: 4096 }),
            VmExit::MemoryFault { address: 0x1000, len: 4096 }
        );
        assert_eq!(
            simple(&VcpuExit::Unsupported(99)),
            VmExit::Unexpected("KVM exit 99".to_owned())
        );
        assert_eq!(
            simple(&VcpuExit::IrqWindowOpen),
            VmExit::Unexpected("KVM exit IrqWindowOpen".to_owned())
        );
    }
}
