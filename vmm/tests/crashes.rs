//! How VMs end that nobody stops.

// A failure of what the tests share is a failure of the test.
#![allow(clippy::unwrap_used)]

mod common;

use common::{PATIENCE, exiter, flat, host};
use pagefold::StopReason;
use pagefold::config::Privilege::{Kernel, User};
use pagefold::status::{Unclaimed, VmState, VmStatus};

fn end_of(code: &[u8], privilege: pagefold::config::Privilege) -> StopReason {
    last_status(code, privilege).0
}

/// How a guest ends, and its status after that.
fn last_status(code: &[u8], privilege: pagefold::config::Privilege) -> (StopReason, VmStatus) {
    let host = host();
    let vm = flat(&host, code, privilege);
    vm.start().unwrap();
    let reason = vm.wait(PATIENCE).unwrap();
    let status = vm.status();
    assert_eq!(status.state, VmState::Stopped);
    assert_eq!(status.clean, Some(reason.is_clean()));
    assert_eq!(vm.stop(), reason, "a stop after the end does not change the reason");
    (reason, status)
}

#[test]
fn an_exit_code_arrives_whole() {
    for code in [0, 1, 101, u32::MAX] {
        assert_eq!(end_of(&exiter(code), User), StopReason::Exited { code });
    }
}

#[test]
fn a_halt_is_a_clean_end() {
    assert_eq!(end_of(&[0xf4], Kernel), StopReason::Halted);
}

#[test]
fn a_halt_without_privilege_is_a_triple_fault() {
    assert_eq!(end_of(&[0xf4], User), StopReason::TripleFault);
}

#[test]
fn an_exception_is_a_triple_fault() {
    assert_eq!(end_of(&[0x0f, 0x0b], User), StopReason::TripleFault); // ud2
}

#[test]
fn a_jump_to_where_nothing_is_ends_the_guest_as_a_crash() {
    // mov eax, 0x7000_0000; jmp rax: mapped by the page tables, and no memory.
    let reason = end_of(&[0xb8, 0, 0, 0, 0x70, 0xff, 0xe0], User);
    assert!(!reason.is_clean(), "{reason}");
}

#[test]
fn a_read_where_nothing_is_gives_all_ones() {
    // mov ecx, 0x7000_0000; mov eax, [rcx]; mov dx, 0x508; out dx, eax
    let code = [0xb9, 0, 0, 0, 0x70, 0x8b, 0x01, 0x66, 0xba, 0x08, 0x05, 0xef];
    assert_eq!(end_of(&code, User), StopReason::Exited { code: u32::MAX });
}

#[test]
fn an_unclaimed_port_reads_all_ones() {
    // in eax, 0x80; mov dx, 0x508; out dx, eax
    let code = [0xe5, 0x80, 0x66, 0xba, 0x08, 0x05, 0xef];
    assert_eq!(end_of(&code, User), StopReason::Exited { code: u32::MAX });
}

#[test]
fn accesses_that_no_device_answers_are_counted_by_bus_until_after_the_end() {
    #[rustfmt::skip]
    let mut code = vec![
        0xe5, 0x80,             // in eax, 0x80
        0xe4, 0x81,             // in al, 0x81
        0xe6, 0x80,             // out 0x80, al
        0xb9, 0, 0, 0, 0x70,    // mov ecx, 0x7000_0000: mapped by the page tables, and no memory
        0x88, 0x01,             // mov [rcx], al
        0x88, 0x41, 0x01,       // mov [rcx + 1], al
        0x8b, 0x01,             // mov eax, [rcx]
        0x8b, 0x01,             // mov eax, [rcx]
        0x8b, 0x01,             // mov eax, [rcx]
    ];
    // The exit port has a device, and is not counted.
    code.extend(exiter(0));
    let (reason, status) = last_status(&code, User);
    assert_eq!(reason, StopReason::Exited { code: 0 });
    assert_eq!(status.unclaimed_ports, Unclaimed { reads: 2, writes: 1 });
    assert_eq!(status.unclaimed_mmio, Unclaimed { reads: 3, writes: 2 });
}

#[test]
fn an_instruction_that_kvm_cannot_emulate_is_named() {
    // popcnt eax, eax; hlt. Only where KVM emulates CPL 0 (KVM-PVM) is this one missing.
    match end_of(&[0xf3, 0x0f, 0xb8, 0xc0, 0xf4], Kernel) {
        StopReason::Halted => {}
        StopReason::InternalError(error) => {
            assert_eq!(error.suberror, 1);
            assert!(error.instruction.starts_with(&[0xf3, 0x0f, 0xb8, 0xc0]), "{error}");
        }
        other => panic!("{other}"),
    }
}
