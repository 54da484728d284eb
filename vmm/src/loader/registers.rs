//! The registers a guest starts with: long mode, as if a boot loader had set it up, or protected mode as PVH has it.
//!
//! The built-in guest starts at CPL 3 with IOPL 3: port I/O from there exits to us like any other,
//! so the guest needs no kernel of its own. Every x86-64 host with VMX or SVM takes this state; the
//! reason for choosing it is KVM-PVM, which executes CPL 3 natively and emulates CPL 0. The segment
//! attributes satisfy the checks on guest state of VMX (SDM volume 3, 27.3.1.2), the strictest: SS
//! has the privilege level of CS, both selectors ask for it, and TR keeps what KVM's reset gave it,
//! a busy TSS.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

use super::{Argument, Entry};
use crate::config::Privilege;

/// PG, AM, WP, NE, ET, MP, PE.
const CR0: u64 = 0x8005_0033;
/// ET, PE.
const CR0_PROTECTED: u64 = 0x11;
/// PAE, and OSFXSR for SSE.
const CR4: u64 = 0x220;
/// LME, LMA.
const EFER: u64 = 0x500;
/// The bit that is always set.
const RFLAGS: u64 = 0x2;
/// Port I/O from every privilege level.
const RFLAGS_IOPL_3: u64 = 0x3000;

/// `reset`, a vCPU's state after its creation, changed to start at `entry`.
pub(crate) fn special_registers(reset: &kvm_sregs, entry: &Entry) -> kvm_sregs {
    let (code_selector, data_selector, dpl) = match entry.privilege {
        Privilege::Kernel => (0x10, 0x18, 0),
        Privilege::User => (0x33, 0x2b, 3),
    };
    let flat = kvm_segment {
        base: 0,
        limit: u32::MAX,
        present: 1,
        dpl,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    // Execute, read, accessed; 64-bit, or 32-bit.
    let is_long = entry.page_tables.is_some();
    let (l, db) = if is_long { (1, 0) } else { (0, 1) };
    let code = kvm_segment { selector: code_selector, type_: 11, l, db, ..flat };
    // Read, write, accessed.
    let data = kvm_segment { selector: data_selector, type_: 3, db: 1, ..flat };
    let mut sregs = *reset;
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    // No descriptor tables: there are no interrupts, and an exception is a fault of the guest that
    // ends it (as a triple fault) instead of running away.
    sregs.gdt.limit = 0;
    sregs.idt.limit = 0;
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = match entry.page_tables {
        Some(page_tables) => (CR0, page_tables, CR4, EFER),
        None => (CR0_PROTECTED, 0, 0, 0),
    };
    sregs
}

/// The general registers for starting at `entry`, all zero but those that matter.
pub(crate) fn general_registers(entry: &Entry) -> kvm_regs {
    let iopl = match entry.privilege {
        Privilege::Kernel => 0,
        Privilege::User => RFLAGS_IOPL_3,
    };
    let mut regs = kvm_regs {
        rip: entry.instruction.0,
        rsp: entry.stack,
        rflags: RFLAGS | iopl,
        ..kvm_regs::default()
    };
    match entry.argument {
        Argument::Rdi(value) => regs.rdi = value,
        Argument::Rsi(value) => regs.rsi = value,
        Argument::Ebx(value) => regs.rbx = value,
    }
    regs
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;

    fn entry(privilege: Privilege) -> Entry {
        Entry {
            instruction: GuestAddress(0x10_0000),
            stack: 0x8_fff8,
            page_tables: Some(0x1_0000),
            argument: Argument::Rdi(0x1000),
            privilege,
        }
    }

    #[test]
    fn a_user_guest_is_at_cpl_3_with_port_access_in_64_bit_code() {
        let entry = entry(Privilege::User);
        let sregs = special_registers(&kvm_sregs::default(), &entry);
        assert_eq!((sregs.cs.selector, sregs.cs.dpl, sregs.cs.l, sregs.cs.db), (0x33, 3, 1, 0));
        assert_eq!((sregs.ss.selector & 3, sregs.ss.dpl), (3, 3));
        assert_eq!(
            (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer),
            (0x8005_0033, 0x1_0000, 0x220, 0x500)
        );
        let regs = general_registers(&entry);
        assert_eq!(
            (regs.rip, regs.rsp, regs.rdi, regs.rflags),
            (0x10_0000, 0x8_fff8, 0x1000, 0x3002)
        );
    }

    #[test]
    fn each_protocol_has_its_mode_and_its_register() {
        let linux = Entry { argument: Argument::Rsi(0x7000), ..entry(Privilege::Kernel) };
        let sregs = special_registers(&kvm_sregs::default(), &linux);
        assert_eq!((sregs.cs.selector, sregs.cs.dpl, sregs.cs.l, sregs.cs.db), (0x10, 0, 1, 0));
        assert_eq!((general_registers(&linux).rsi, general_registers(&linux).rflags), (0x7000, 2));
        let pvh = Entry { page_tables: None, argument: Argument::Ebx(0x6000), ..linux };
        let sregs = special_registers(&kvm_sregs::default(), &pvh);
        assert_eq!((sregs.cs.l, sregs.cs.db, sregs.cr0, sregs.efer), (0, 1, 0x11, 0));
        assert_eq!(general_registers(&pvh).rbx, 0x6000);
    }

    #[test]
    fn privilege_of_selectors_and_segments_agrees() {
        for privilege in [Privilege::User, Privilege::Kernel] {
            let sregs = special_registers(&kvm_sregs::default(), &entry(privilege));
            for segment in [sregs.cs, sregs.ss, sregs.ds, sregs.es, sregs.fs, sregs.gs] {
                assert_eq!(segment.selector & 3, u16::from(segment.dpl));
                assert_eq!(segment.dpl, sregs.cs.dpl);
            }
        }
    }
}
