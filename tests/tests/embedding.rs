//! The library as a density test uses it: several hosts in one process, dropped in any order, and
//! nothing of them left.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{process, thread};

use pagefold::config::{BuiltinGuest, DedupMode, VmConfig};
use pagefold::{BuiltinStatus, Host, HostConfig, StopReason, VmHandle};
use pagefold_dedup::VmId;
use pagefold_guest::ports::Control;
use pagefold_guest::workload::Preset;
use pagefold_tests::harness::PATIENCE;
use pagefold_tests::harness::proc::{descriptors, status_field, stores, threads};

/// These tests count what is in their process, so they take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn two_hosts_fold_side_by_side_and_do_not_know_each_other() {
    let _turn = turn();
    let hosts = [host(), host()];
    let vms: Vec<VmHandle> = hosts.iter().flat_map(|host| [0, 1].map(|n| vm(host, n))).collect();
    run_to_rest(&vms);
    for host in &hosts {
        host.dedup().settle(PATIENCE).expect("it settles");
    }
    // Ids are each host's own, and so are domains: the same content is in two stores.
    let ids: Vec<VmId> = vms.iter().map(VmHandle::id).collect();
    assert_eq!(ids, [0, 1, 0, 1].map(VmId));
    let inodes: Vec<u64> = stores(process::id()).iter().map(|store| store.inode).collect();
    assert_eq!(inodes.len(), 2, "{inodes:?}");
    for vm in &vms {
        vm.pause().expect("paused");
    }
    let pages = hosts.each_ref().map(|host| {
        host.dedup().check().expect("folding goes on").expect("all is as it should be");
        let stats = host.dedup().stats().expect("statistics");
        assert_eq!(stats.vms.len(), 2);
        assert!(stats.pages_sharing > 0);
        stats.pages_sharing
    });
    assert!(pages[0].abs_diff(pages[1]) <= 8, "the same guests share the same: {pages:?}");
    for vm in &vms {
        vm.resume().expect("resumed");
    }

    // The end of one host is not felt by the other's guests, who verify all they have.
    let [first, second] = hosts;
    drop(first);
    assert_eq!(vms[0].wait(PATIENCE), Some(StopReason::Requested));
    finish(&vms[2..]);
    drop(second);
}

/// A way of letting go of everything.
type Drops = fn(Host, Vec<VmHandle>);

#[test]
fn whatever_is_dropped_first_everything_ends_and_nothing_is_left() {
    let _turn = turn();
    let before = Traces::without_hosts();
    let orders: [(&str, Drops); 5] = [
        ("the host first", |host, vms| {
            drop(host);
            assert!(vms.iter().all(|vm| vm.wait(PATIENCE) == Some(StopReason::Requested)));
            assert!(vms.iter().all(|vm| vm.ram().is_none() && vm.pause().is_err()));
        }),
        ("the handles first", |host, vms| {
            drop(vms);
            assert_eq!(host.vms().len(), 2);
            drop(host);
        }),
        ("a folding handle last", |host, vms| {
            let dedup = host.dedup().clone();
            drop((host, vms));
            let stats = dedup.stats().expect("it lives as long as its last handle");
            assert_eq!((stats.vms.len(), stats.saved_bytes), (0, 0));
        }),
        ("a clone of the host, from another thread", |host, vms| {
            let clone = host.clone();
            drop(host);
            assert!(vms.iter().all(|vm| vm.status().stop_reason.is_none()));
            thread::spawn(move || drop(clone)).join().expect("no panic");
            assert!(vms.iter().all(|vm| vm.status().stop_reason.is_some()));
        }),
        ("guests that have finished and a guest that was never started", |host, vms| {
            finish(&vms);
            let unstarted = vm(&host, 7);
            drop((vms, host));
            assert_eq!(unstarted.wait(PATIENCE), Some(StopReason::Requested));
        }),
    ];
    for (order, drops) in orders {
        let host = host();
        let vms = [0, 1].map(|number| vm(&host, number)).to_vec();
        run_to_rest(&vms);
        assert!(host.dedup().settle(PATIENCE).is_ok(), "{order}");
        drops(host, vms);
        before.assert_nothing_more(order);
    }
}

#[test]
fn the_programs_signal_handlers_are_its_own() {
    let _turn = turn();
    // Caught and ignored by the process, blocked by this thread.
    let signals = || ["SigCgt", "SigIgn", "SigBlk"].map(status_field);
    let before = signals();
    let host = host();
    let vms = [0, 1].map(|number| vm(&host, number));
    run_to_rest(&vms);
    host.dedup().settle(PATIENCE).expect("it settles");
    assert_eq!(signals(), before, "while guests run");
    vms[0].pause().expect("paused");
    vms[0].resume().expect("resumed");
    finish(&vms);
    drop(host);
    assert_eq!(signals(), before, "afterwards");
}

#[test]
fn no_descriptor_is_inherited_by_programs_that_are_executed() {
    let _turn = turn();
    let before = inheritable();
    let host = host();
    let vms = [0, 1].map(|number| vm(&host, number));
    run_to_rest(&vms);
    host.dedup().settle(PATIENCE).expect("settled");
    assert_eq!(inheritable(), before);
    drop(host);
}

/// The descriptors of this process that stay open in a program that it executes.
fn inheritable() -> Vec<String> {
    let is_inheritable = |number: &String| {
        // The list's own is gone by now.
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"));
        info.is_ok_and(|info| {
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
            let flags = flags.map(str::trim).expect("descriptors have flags");
            let flags = u64::from_str_radix(flags, 8).expect("in octal");
            flags & u64::from(libc::O_CLOEXEC.cast_unsigned()) == 0
        })
    };
    let numbers = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    let numbers: Vec<String> = numbers
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    numbers.into_iter().filter(is_inheritable).collect()
}

#[test]
fn a_host_can_be_made_again_after_the_last_has_gone() {
    let _turn = turn();
    let before = Traces::without_hosts();
    for round in 0..3 {
        let host = host();
        let vms = [vm(&host, round)];
        run_to_rest(&vms);
        finish(&vms);
    }
    before.assert_nothing_more("three hosts, one after the other");
}

/// What a host with VMs would be seen by.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    descriptors: Vec<String>,
    threads: Vec<String>,
}

impl Traces {
    fn now() -> Self {
        let of_a_host = |name: &String| name.starts_with("pagefold") || name.starts_with("vm");
        Self {
            // One of these is that of the list itself, which has its own number each time.
            descriptors: descriptors(process::id())
                .into_iter()
                .filter(|target| !target.starts_with("/proc/"))
                .collect(),
            // The test runner has threads too, named after its tests.
            threads: threads(process::id()).into_iter().filter(of_a_host).collect(),
        }
    }

    /// What there is before any host, and once all those of an earlier turn have gone.
    fn without_hosts() -> Self {
        let now = Self::now();
        assert!(!now.descriptors.iter().any(|target| target.contains("kvm")), "{now:?}");
        Self { threads: Vec::new(), ..now }
    }

    /// The folding engine's pool ends its threads and does not wait for them, and a thread that has
    /// been joined leaves `/proc` a moment later. Neither is an event.
    fn assert_nothing_more(&self, when: &str) {
        let end = Instant::now() + PATIENCE;
        while *self != Self::now() {
            assert!(Instant::now() < end, "{when}: {:#?}, not {self:#?}", Self::now());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn host() -> Host {
    Host::new(HostConfig::default()).expect("a host")
}

fn vm(host: &Host, vm_number: u32) -> VmHandle {
    let guest = BuiltinGuest { preset: Preset::Mix, vm_number, seed: 8 };
    let config = VmConfig { dedup: DedupMode::On, ..VmConfig::builtin(8 << 20, guest) };
    host.vm(config).build().expect("a VM")
}

fn run_to_rest(vms: &[VmHandle]) {
    for vm in vms {
        vm.start().expect("started");
    }
    for vm in vms {
        vm.wait_ready(PATIENCE).expect("ready");
        vm.set_control(Control::Rest).expect("told to rest");
        vm.wait_resting(PATIENCE).expect("resting");
    }
}

fn finish(vms: &[VmHandle]) {
    for vm in vms {
        vm.set_control(Control::Finish).expect("told to finish");
    }
    for vm in vms {
        assert_eq!(vm.wait(PATIENCE), Some(StopReason::Exited { code: 0 }), "{:?}", vm.status());
        assert_eq!(BuiltinStatus::of(&vm.status()).and_then(|guest| guest.corrupt), Some(0));
    }
}
