//! Folding without privileges: alone in its process, which gives them up.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

#[path = "../common/mod.rs"]
mod common;
mod sys;

use std::fs::{File, read_to_string};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::{TestVm, engine, page, settle};
use pagefold_dedup::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, Knobs, Run, Unchanging, VmId,
};

#[test]
fn memory_that_the_kernel_does_not_write_is_folded_without_privileges() {
    sys::drop_privileges();
    let mut engine = engine();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, 64));
    for vm in &vms {
        (0..64).for_each(|number| vm.write(number, &page(number as u32)));
    }
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, 64);
    vms[0].write(5, &page(500));
    settle(&mut engine);
    engine.detach(vms[0].id).unwrap();
    for number in (0..64).filter(|&number| number != 5) {
        assert_eq!(vms[0].read(number), page(number as u32));
    }
    assert_eq!((vms[0].read(5), vms[1].read(5)), (page(500), page(5)));

    no_read_by_the_kernel_fails(&mut engine);

    // What the kernel writes needs a privilege, unless this machine gives it to everybody.
    let for_everybody = read_to_string("/proc/sys/vm/unprivileged_userfaultfd").unwrap() == "1\n"
        || File::options().read(true).write(true).open("/dev/userfaultfd").is_ok();
    let memory = AnonymousMemory::new(64).unwrap().written_by_kernel();
    let spec = AttachSpec {
        domain: "test".to_owned(),
        mode: DedupMode::On,
        memory: Arc::new(memory),
        changes: Box::new(Unchanging),
    };
    match engine.attach(VmId(2), spec) {
        Ok(()) => assert!(for_everybody),
        Err(error) => {
            assert!(!for_everybody);
            let cause = std::error::Error::source(&error).unwrap();
            let cause = cause.source().unwrap().to_string();
            assert!(cause.starts_with("cannot open a userfaultfd that also covers"), "{cause}");
        }
    }
    engine.check().unwrap();
}

/// Unmerges pages and gives their mappings back while the kernel reads them for a system call.
fn no_read_by_the_kernel_fails(engine: &mut Engine) {
    let vms = [10, 11].map(|id| TestVm::attached(engine, id, 2048));
    for vm in &vms {
        (0..2048).step_by(2).for_each(|number| vm.write(number, &page(number as u32)));
    }
    settle(engine);
    let (stop, sent_pages) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let reader = scope.spawn(|| sys::send_until(&vms[0].memory, &stop, &sent_pages));
        while sent_pages.load(Ordering::Relaxed) == 0 && !reader.is_finished() {
            thread::yield_now();
        }
        engine.set_knobs(Knobs { run: Run::Unmerge, ..engine.knobs() }).unwrap();
        while !engine.is_unmerged() {
            engine.pass();
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    engine.pass();
    engine.check().unwrap();
    engine.set_knobs(Knobs { run: Run::Fold, ..engine.knobs() }).unwrap();
    for vm in &vms {
        for number in (0..2048).step_by(2) {
            assert_eq!(vm.read(number), page(number as u32));
        }
        engine.detach(vm.id).unwrap();
    }
}
