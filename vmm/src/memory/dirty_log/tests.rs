use std::collections::BTreeSet;

use pagefold_dedup::{ChangeConsumer, SharedChanges};
use pagefold_devices::DeviceMemory;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::config::{FlatImage, Privilege};
use crate::kvm::OpenKvm;
use crate::loader::{Loader, general_registers, special_registers};
use crate::memory::{GuestRam, HOLE_END, HOLE_START};
use crate::vcpu::exit::{VmExit, enter};

const MEMORY_BYTES: u64 = 8 << 20;
const FIRST: u32 = 0x20_0000 / 4096;

/// A guest that writes one byte into each of 100 pages from `FIRST` on, every other one, then
/// touches an I/O port, and so on for ever.
#[rustfmt::skip]
const WRITER: &[u8] = &[
    0xbf, 0x00, 0x00, 0x20, 0x00,             // mov edi, 0x200000
    0xb9, 100, 0x00, 0x00, 0x00,              // mov ecx, 100
    0xfe, 0x07,                               // inc byte [rdi]
    0x81, 0xc7, 0x00, 0x20, 0x00, 0x00,       // add edi, 0x2000
    0xff, 0xc9,                               // dec ecx
    0x75, 0xf4,                               // jnz -12
    0xe6, 0x80,                               // out 0x80, al
    0xeb, 0xe6,                               // jmp -26
];

/// A guest that maps the 2 MiB from 4 GiB on, and then writes one byte into the fourth page there,
/// touches an I/O port, and so on for ever.
#[rustfmt::skip]
const HIGH_WRITER: &[u8] = &[
    0x48, 0xc7, 0x04, 0x25, 0x20, 0x10, 0x01, 0x00, // mov qword [0x11020], …
    0x07, 0x50, 0x01, 0x00,                         //   0x15007: the fifth GiB's directory
    0x48, 0xb8, 0x87, 0, 0, 0, 1, 0, 0, 0,          // mov rax, 0x100000087: a 2 MiB page
    0x48, 0x89, 0x04, 0x25, 0x00, 0x50, 0x01, 0x00, // mov [0x15000], rax
    0x48, 0xb8, 0x00, 0x30, 0, 0, 1, 0, 0, 0,       // mov rax, 0x100003000
    0xfe, 0x00,                                     // inc byte [rax]
    0xe6, 0x80,                                     // out 0x80, al
    0xeb, 0xfa,                                     // jmp -6
];

struct Machine {
    // Before the VM, as in `Vcpu`.
    vcpu: kvm_ioctls::VcpuFd,
    vm: Arc<MappedVm>,
}

impl Machine {
    fn new() -> Self {
        Self::logging(true)
    }

    fn logging(log_writes: bool) -> Self {
        let image = FlatImage { code: WRITER.to_vec(), privilege: Privilege::User };
        Self::running(&image, MEMORY_BYTES, log_writes)
    }

    fn running(image: &FlatImage, memory_bytes: u64, log_writes: bool) -> Self {
        let kvm = OpenKvm::new().unwrap();
        let ram = Arc::new(GuestRam::new(memory_bytes).unwrap());
        let vm = Arc::new(MappedVm::new(kvm.kvm.create_vm().unwrap(), ram, log_writes).unwrap());
        let vcpu = vm.fd().create_vcpu(0).unwrap();
        vcpu.set_cpuid2(&kvm.cpuid_of(0)).unwrap();
        let entry = image.load(vm.ram(), 1, 1).unwrap()[0];
        let sregs = special_registers(&vcpu.get_sregs().unwrap(), &entry);
        vcpu.set_sregs(&sregs).unwrap();
        vcpu.set_regs(&general_registers(&entry)).unwrap();
        Self { vcpu, vm }
    }

    /// Runs the guest until it has written all its pages once more.
    fn one_round(&mut self) {
        let run_bytes = self.vm.fd().run_size();
        let exit = enter(&mut self.vcpu, run_bytes);
        assert!(matches!(exit, VmExit::PortWrite { port: 0x80, width: 1, .. }), "{exit:?}");
    }

    fn log(&self) -> KvmDirtyLog {
        KvmDirtyLog::new(Arc::clone(&self.vm))
    }
}

fn collect(log: &mut KvmDirtyLog) -> BTreeSet<u32> {
    let mut changed = PageSet::new(log.vm.ram().page_count());
    log.collect(&mut changed).unwrap();
    changed.iter().map(|page| page.0).collect()
}

fn written_by_guest() -> BTreeSet<u32> {
    (FIRST..).step_by(2).take(100).collect()
}

#[test]
fn what_the_guest_writes_is_reported_once_each_time() {
    let mut machine = Machine::new();
    let mut log = machine.log();
    collect(&mut log);
    for _ in 0..20 {
        machine.one_round();
        assert!(collect(&mut log).is_superset(&written_by_guest()));
        assert!(collect(&mut log).is_disjoint(&written_by_guest()));
    }
}

#[test]
fn what_the_vmm_writes_is_reported_too() {
    let machine = Machine::new();
    let mut log = machine.log();
    // What was loaded before the first call counts as written.
    let loaded = collect(&mut log);
    assert!(loaded.contains(&(0x1_0000 / 4096)) && loaded.contains(&(0x10_0000 / 4096)));
    assert_eq!(collect(&mut log), BTreeSet::new());
    machine.vm.ram().memory().write_slice(&[1; 4097], GuestAddress(0x30_0fff)).unwrap();
    assert_eq!(collect(&mut log), BTreeSet::from([0x300, 0x301]));
}

#[test]
fn what_a_device_writes_is_reported_too() {
    fn answer(memory: &impl DeviceMemory, address: u64) {
        memory.write_obj(1_u8, GuestAddress(address)).unwrap();
    }
    let machine = Machine::new();
    let mut log = machine.log();
    collect(&mut log);
    answer(machine.vm.ram().memory(), 0x30_0fff);
    assert_eq!(collect(&mut log), BTreeSet::from([0x300]));
}

#[test]
fn what_is_written_above_the_hole_is_reported_by_its_linear_index() {
    let image = FlatImage { code: HIGH_WRITER.to_vec(), privilege: Privilege::Kernel };
    let mut machine = Machine::running(&image, HOLE_START + MEMORY_BYTES, true);
    let mut log = machine.log();
    collect(&mut log);
    machine.one_round();
    collect(&mut log);
    let first = u32::try_from(HOLE_START / 4096).unwrap();
    for _ in 0..3 {
        machine.one_round();
        machine.vm.ram().memory().write_obj(1_u8, GuestAddress(HOLE_END + 0x6000)).unwrap();
        assert_eq!(collect(&mut log), BTreeSet::from([first + 3, first + 6]));
        assert_eq!(collect(&mut log), BTreeSet::new());
    }
}

#[test]
fn bits_that_are_set_stay_set() {
    let mut machine = Machine::new();
    let mut log = machine.log();
    let mut changed = PageSet::new(machine.vm.ram().page_count());
    changed.insert(LinearIndex(2047));
    machine.one_round();
    log.collect(&mut changed).unwrap();
    assert!(changed.contains(LinearIndex(2047)) && changed.contains(LinearIndex(FIRST)));
}

#[test]
fn what_was_read_and_not_handed_on_is_named_by_a_later_call() {
    let mut machine = Machine::new();
    let mut log = machine.log();
    collect(&mut log);
    let own = 0x50_0000 / 4096;
    machine.vm.ram().memory().write_obj(1_u8, GuestAddress(0x50_0000)).unwrap();
    machine.vm.ram().memory().write_obj(1_u8, GuestAddress(0x7f_f000)).unwrap();
    machine.one_round();
    let mut changed = PageSet::new(machine.vm.ram().page_count());
    // As a pass does that fails after its first stretch: its own writes are in no other log by then.
    let part = LinearIndex(0).run(64);
    let next = log.collect_part(part.clone(), &mut changed).unwrap();
    assert!(next == part.end && changed.iter().all(|page| part.contains(&page)));
    let named = collect(&mut log);
    assert!(named.is_superset(&written_by_guest()));
    assert!(named.contains(&own) && named.contains(&0x7ff));
    assert!(
        log.logs.iter().all(|log| log.words.is_empty()),
        "the log is given up when all is said"
    );
    assert_eq!(collect(&mut log), BTreeSet::new());
}

#[test]
fn parts_name_together_what_the_whole_names_and_each_page_once() {
    let mut machine = Machine::new();
    let mut log = machine.log();
    collect(&mut log);
    let pages = machine.vm.ram().page_count();
    for part in [1, 64, 100, 1000] {
        machine.one_round();
        let (mut named, mut next) = (BTreeSet::new(), LinearIndex(0));
        while next.0 < pages {
            let mut changed = PageSet::new(pages);
            let within = next..next.offset(part).min(changed.end());
            next = log.collect_part(within.clone(), &mut changed).unwrap();
            assert!(next > within.start);
            assert!(changed.iter().all(|page| named.insert(page.0)), "twice, in parts of {part}");
        }
        assert!(named.is_superset(&written_by_guest()));
        assert!(collect(&mut log).is_disjoint(&written_by_guest()));
    }
}

#[test]
fn no_write_is_missed_while_vmm_and_guest_write() {
    let mut machine = Machine::new();
    let mut log = machine.log();
    collect(&mut log);
    let vm = Arc::clone(&machine.vm);
    let (rounds, page) = (2000_u64, 0x70_0000 / 4096);
    let writer = std::thread::spawn(move || {
        for value in 1..=rounds {
            vm.ram().memory().write_obj(value, GuestAddress(0x70_0000)).unwrap();
        }
    });
    // A value that differs from the one seen at the report before must have been reported: by this
    // report, or by the next one if the write was under way.
    let read = |log: &KvmDirtyLog| -> u64 {
        log.vm.ram().memory().read_obj(GuestAddress(0x70_0000)).unwrap()
    };
    let (mut known, mut overdue) = (0, false);
    while known < rounds {
        let seen = read(&log);
        machine.one_round();
        let reported = collect(&mut log);
        assert!(reported.is_superset(&written_by_guest()));
        let is_reported = reported.contains(&page);
        if seen != known {
            assert!(is_reported || !overdue, "{known} to {seen}");
            overdue = true;
            known = seen;
        }
        overdue &= !is_reported;
    }
    writer.join().unwrap();
}

#[test]
fn a_log_that_is_switched_on_while_the_vm_lives_misses_nothing_from_then_on() {
    let mut machine = Machine::logging(false);
    machine.one_round();
    let mut log = machine.log();
    let mut changed = PageSet::new(machine.vm.ram().page_count());
    assert!(log.collect(&mut changed).is_err(), "there is no log");
    for _ in 0..3 {
        machine.vm.log_writes(true).unwrap();
        collect(&mut log);
        for _ in 0..3 {
            machine.one_round();
            assert!(collect(&mut log).is_superset(&written_by_guest()));
            assert!(collect(&mut log).is_disjoint(&written_by_guest()));
        }
        machine.vm.log_writes(false).unwrap();
        machine.one_round();
    }
}

#[test]
fn nothing_is_logged_while_nobody_watches_and_everything_from_then_on() {
    let mut machine = Machine::new();
    let mut log = machine.log();
    collect(&mut log);
    for _ in 0..3 {
        log.watch(false).unwrap();
        machine.one_round();
        let byte_count = usize::try_from(MEMORY_BYTES).unwrap();
        assert!(machine.vm.fd().get_dirty_log(0, byte_count).is_err(), "KVM keeps a log");
        log.watch(true).unwrap();
        collect(&mut log);
        machine.one_round();
        assert!(collect(&mut log).is_superset(&written_by_guest()));
    }
}

#[test]
fn neither_of_two_consumers_of_a_log_misses_what_the_other_has_read() {
    let mut machine = Machine::logging(false);
    let page_count = machine.vm.ram().page_count();
    let shared = SharedChanges::new(Box::new(machine.log()), page_count, false);
    let read = |consumer: &mut ChangeConsumer| {
        let mut changed = PageSet::new(page_count);
        consumer.collect(&mut changed).unwrap();
        changed.iter().map(|page| page.0).collect::<BTreeSet<u32>>()
    };
    let (mut one, mut other) = (shared.consumer().unwrap(), shared.consumer().unwrap());
    machine.one_round();
    assert!(read(&mut one).is_superset(&written_by_guest()));
    assert_eq!(read(&mut one), BTreeSet::new(), "KVM has forgotten it");
    assert!(read(&mut other).is_superset(&written_by_guest()), "and the other has not");
    // Nobody switches the log off for another.
    one.watch(false).unwrap();
    machine.one_round();
    assert!(read(&mut other).is_superset(&written_by_guest()));
    one.watch(true).unwrap();
    drop(other);
    machine.one_round();
    assert!(read(&mut one).is_superset(&written_by_guest()));
}
