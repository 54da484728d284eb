//! What the `kvm_run` area has beyond kvm-ioctls' `VcpuExit`: the width of a string access, and
//! why KVM gave up.

use kvm_bindings::{
    KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_IO, KVM_EXIT_IO_OUT, KVM_EXIT_MMIO,
    KVM_INTERNAL_ERROR_EMULATION, KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES,
};
use kvm_ioctls::VcpuFd;

use super::internal_error::InternalError;

/// A port access as KVM leaves it: `data` is `width` bytes, once for each repetition of a string
/// instruction.
#[derive(Debug)]
pub(crate) struct PortAccess<'a> {
    pub(crate) port: u16,
    pub(crate) width: usize,
    pub(crate) is_write: bool,
    pub(crate) data: &'a mut [u8],
}

/// A memory access that no slot answered.
#[derive(Debug)]
pub(crate) struct MmioAccess<'a> {
    pub(crate) address: u64,
    pub(crate) is_write: bool,
    pub(crate) data: &'a mut [u8],
}

/// The port access of the exit just taken; `None` if it was another exit, or if what the kernel
/// left there does not lie within the `run_bytes` that are mapped.
pub(crate) fn port_access(vcpu: &mut VcpuFd, run_bytes: usize) -> Option<PortAccess<'_>> {
    let run = vcpu.get_kvm_run();
    if run.exit_reason != KVM_EXIT_IO {
        return None;
    }
    // SAFETY: the union's field is the one that the exit reason, which only the kernel sets, names;
    // it is plain integers, for which every bit pattern is valid.
    let io = unsafe { run.__bindgen_anon_1.io };
    let width = usize::from(io.size);
    let len = width.checked_mul(usize::try_from(io.count).ok()?)?;
    let offset = usize::try_from(io.data_offset).ok()?;
    // The data page lies behind the structure, so that the two borrows cannot overlap.
    let inside = offset >= size_of_val(run) && offset.checked_add(len)? <= run_bytes;
    if width == 0 || !inside {
        return None;
    }
    let base = std::ptr::from_mut(run).cast::<u8>();
    // SAFETY: `offset` is within the `run_bytes` that kvm-ioctls mapped at `base`, just checked.
    let data = unsafe { base.add(offset) };
    // SAFETY: `len` bytes from there are inside the same mapping, which lives as long as the
    // exclusive borrow of the vCPU; the kernel writes them only during KVM_RUN, which needs that
    // borrow too.
    let data = unsafe { std::slice::from_raw_parts_mut(data, len) };
    let is_write = u32::from(io.direction) == KVM_EXIT_IO_OUT;
    Some(PortAccess { port: io.port, width, is_write, data })
}

/// The memory access of the exit just taken; `None` if it was another exit.
pub(crate) fn mmio_access(vcpu: &mut VcpuFd) -> Option<MmioAccess<'_>> {
    let run = vcpu.get_kvm_run();
    if run.exit_reason != KVM_EXIT_MMIO {
        return None;
    }
    // SAFETY: as in `port_access`: the exit reason names the field, which is plain integers.
    let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
    let data = mmio.data.get_mut(..usize::try_from(mmio.len).ok()?)?;
    Some(MmioAccess { address: mmio.phys_addr, is_write: mmio.is_write != 0, data })
}

/// Why KVM gave up, when the exit just taken reports that it did.
pub(crate) fn internal_error(vcpu: &mut VcpuFd) -> Option<InternalError> {
    let run = vcpu.get_kvm_run();
    if run.exit_reason != KVM_EXIT_INTERNAL_ERROR {
        return None;
    }
    // SAFETY: as in `port_access`: the exit reason names the field, which is plain integers.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let mut error = InternalError { suberror: internal.suberror, instruction: Vec::new() };
    if internal.suberror == KVM_INTERNAL_ERROR_EMULATION {
        // SAFETY: the suberror, which only the kernel sets, means that this is the view of the same
        // bytes; it is plain integers.
        let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
        // `ndata` counts the 64-bit words from `flags` on that the kernel filled in.
        let known = failure.ndata >= 3
            && failure.flags & u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
        if known {
            // SAFETY: the flag means that this variant of the innermost union is filled in; it is
            // bytes.
            let bytes = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
            let len = usize::from(bytes.insn_size).min(bytes.insn_bytes.len());
            error.instruction = bytes.insn_bytes[..len].to_vec();
        }
    }
    Some(error)
}
