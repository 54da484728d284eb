//! Pages that the kernel writes out: alone in its process, with a swap file of its own.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../common/mod.rs"]
mod common;
mod sys;

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use common::{TestVm, engine, page, settle};
use pagefold_dedup::{DedupMode, Engine, PAGE_SIZE, Reason, VmId};

const PAGES: u32 = 64;
const SWAP_BYTES: usize = 16 << 20;

/// A swap file that is in use as long as this lives.
struct Swap(PathBuf);

impl Swap {
    /// Begins to swap.
    ///
    /// # Errors
    ///
    /// Why that is not possible here.
    fn on() -> Result<Self, String> {
        // Not in memory: a file there cannot be swapped to.
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let path = path.join(format!("swap-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        file.set_permissions(Permissions::from_mode(0o600)).unwrap();
        file.write_all(&vec![0; SWAP_BYTES]).unwrap();
        drop(file);
        let swap = Self(path);
        for command in ["mkswap", "swapon"] {
            match Command::new(command).arg(&swap.0).output() {
                Ok(output) if output.status.success() => {}
                other => return Err(format!("{command} does not work here: {other:?}")),
            }
        }
        Ok(swap)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = Command::new("swapoff").arg(&self.0).output();
        let _ = std::fs::remove_file(&self.0);
    }
}

fn swapped_pages(engine: &Engine, vm: usize) -> u64 {
    engine.stats().vms[vm].swapped_pages.unwrap()
}

fn reason(engine: &Engine, vm: u32, number: u32) -> Reason {
    engine.explain(VmId(vm), u64::from(number) * PAGE_SIZE as u64).unwrap().reason
}

/// Two VMs with equal, distinct pages.
fn twins() -> [TestVm; 2] {
    [0, 1].map(|id| {
        let vm = TestVm::new(id, PAGES);
        (0..PAGES).for_each(|number| vm.write(number as usize, &page(number)));
        vm
    })
}

// One test, as both need the machine's swap.
#[test]
fn pages_that_were_swapped_out_are_folded_when_they_return_and_not_read_in_before() {
    let _swap = match Swap::on() {
        Ok(swap) => swap,
        Err(why) => {
            eprintln!("skipped: {why}");
            return;
        }
    };
    pages_that_are_in_swap_when_their_vm_is_first_visited();
    broken_pages_that_are_swapped_out();
    pages_that_are_swapped_out_while_they_wait_for_a_twin();
}

fn pages_that_are_in_swap_when_their_vm_is_first_visited() {
    let mut engine = engine();
    let vms = twins();
    sys::page_out(&vms[0].memory);
    for vm in &vms {
        vm.attach(&mut engine, "test", DedupMode::On);
    }
    let out = swapped_pages(&engine, 0);
    assert!(out > u64::from(PAGES) / 2, "{out} pages were written out");
    for _ in 0..50 {
        engine.pass();
    }
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!(swapped_pages(&engine, 0), out, "nothing is read in to be looked at");
    assert_eq!(stats.vms[0].volatile_pages, 0, "{stats:?}");
    assert_eq!(stats.pages_sharing, u64::from(PAGES) - out);
    let is_out = |number: &u32| reason(&engine, 0, *number) == Reason::Swapped;
    assert_eq!((0..PAGES).filter(is_out).count() as u64, out);

    (0..PAGES).for_each(|number| sys::read_in(&vms[0].memory, number as usize));
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_sharing, swapped_pages(&engine, 0)), (u64::from(PAGES), 0));
    for vm in &vms {
        (0..PAGES).for_each(|number| assert_eq!(vm.read(number as usize), page(number)));
    }
}

fn broken_pages_that_are_swapped_out() {
    let mut engine = engine();
    let vms = twins();
    for vm in &vms {
        vm.attach(&mut engine, "test", DedupMode::On);
    }
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
    (0..PAGES).for_each(|number| vms[0].write(number as usize, &page(1000 + number)));
    sys::page_out(&vms[0].memory);
    let out = swapped_pages(&engine, 0);
    assert!(out > u64::from(PAGES) / 2, "{out} pages were written out");
    settle(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.pages_sharing, stats.events.breaks), (0, u64::from(PAGES)));
    assert_eq!(swapped_pages(&engine, 0), out, "nothing is read in to be looked at");

    // Equal again, and in memory: the write reads them in.
    (0..PAGES).for_each(|number| vms[0].write(number as usize, &page(number)));
    settle(&mut engine);
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
}

// Read under protection, they would hold up whoever writes near them.
fn pages_that_are_swapped_out_while_they_wait_for_a_twin() {
    let mut engine = engine();
    let vms = twins();
    vms[0].attach(&mut engine, "test", DedupMode::On);
    settle(&mut engine);
    assert_eq!(engine.stats().pages_unshared, u64::from(PAGES));
    sys::page_out(&vms[0].memory);
    let out = swapped_pages(&engine, 0);
    assert!(out > u64::from(PAGES) / 2, "{out} pages were written out");
    vms[1].attach(&mut engine, "test", DedupMode::On);
    for _ in 0..10 {
        engine.pass();
    }
    settle(&mut engine);
    engine.check().unwrap();
    assert_eq!(swapped_pages(&engine, 0), out, "nothing is read in to be compared");
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES) - out);

    (0..PAGES).for_each(|number| sys::read_in(&vms[0].memory, number as usize));
    settle(&mut engine);
    engine.check().unwrap();
    assert_eq!(engine.stats().pages_sharing, u64::from(PAGES));
    for vm in &vms {
        (0..PAGES).for_each(|number| assert_eq!(vm.read(number as usize), page(number)));
    }
}
