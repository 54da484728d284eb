//! No kick is lost, whatever the guest is doing.

mod common;

use common::{COUNTER, SLEEPER, TOUCHER, host, user, wait_for_progress};
use pagefold::StopReason;
use pagefold::status::VmState;

const ROUNDS: usize = 1_000;

#[test]
fn a_computing_guest_is_paused_and_resumed_a_thousand_times() {
    let host = host();
    let vm = user(&host, COUNTER);
    vm.start().unwrap();
    for _ in 0..ROUNDS {
        vm.pause().unwrap();
        vm.resume().unwrap();
    }
    wait_for_progress(&vm, 1);
}

#[test]
fn a_guest_busy_with_ports_is_paused_and_resumed_a_thousand_times() {
    let host = host();
    let vm = user(&host, TOUCHER);
    vm.start().unwrap();
    for _ in 0..ROUNDS {
        vm.pause().unwrap();
        vm.resume().unwrap();
    }
    wait_for_progress(&vm, 1);
}

#[test]
fn four_threads_pulling_at_one_vm_do_not_deadlock() {
    let host = host();
    for code in [COUNTER, SLEEPER] {
        let vm = user(&host, code);
        vm.start().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS / 4 {
                        vm.pause().unwrap();
                        vm.status();
                        vm.resume().unwrap();
                    }
                });
            }
        });
        assert_eq!(vm.state(), VmState::Running);
        assert_eq!(vm.stop(), StopReason::Requested);
    }
}

#[test]
fn a_stop_wins_against_pauses() {
    let host = host();
    for _ in 0..50 {
        let vm = user(&host, COUNTER);
        vm.start().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| while vm.pause().and_then(|()| vm.resume()).is_ok() {});
            assert_eq!(vm.stop(), StopReason::Requested);
        });
        assert_eq!(vm.state(), VmState::Stopped);
    }
}
