//! How VMs end that nobody stops.

// A failure of what the tests share is a failure of the test.
#![allow(clippy::unwrap_used)]

mod common;

use common::{PATIENCE, exiter, flat, host};
use pagefold::StopReason;
use pagefold::config::Privilege::{Kernel, User};
use pagefold::status::VmState;

fn end_of(code: &[u8], privilege: pagefold::config::Privilege) -> StopReason {
    let host = host();
    let vm = flat(&host, code, privilege);
    vm.start().unwrap();
    let reason = vm.wait(PATIENCE).unwrap();
    let status = vm.status();
    assert_eq!(status.state, VmState::Stopped);
    assert_eq!(status.clean, Some(reason.is_clean()));
    assert_eq!(vm.stop(), reason, "a stop after the end does not change the reason");
    reason
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
