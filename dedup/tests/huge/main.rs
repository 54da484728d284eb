//! Memory that is in huge pages when its folding begins: what is saved is really given back.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

#[path = "../common/mod.rs"]
mod common;
mod sys;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use common::{TestVm, check_counters, engine, page, settle};
use pagefold_dedup::{DedupMode, GuestMemory, LinearIndex, PAGE_SIZE};

/// Pages of 4 KiB in a huge one.
const HUGE: usize = 512;
const PAGES: usize = 8 * HUGE;

const NONE: &str = "this machine has no huge pages, or does not show them: nothing is tested";

/// Whether the memory of a page is a part of a huge page's, which stays together when only the page
/// table has been split. `None` when the page is not there or the kernel does not tell.
fn is_in_huge_frame(vm: &TestVm, number: usize) -> Option<bool> {
    const FRAME: u64 = (1 << 55) - 1;
    const KPF_THP: u64 = 1 << 22;
    let word = |path: &str, index: usize| -> io::Result<u64> {
        let mut bytes = [0; 8];
        File::open(path)?.read_exact_at(&mut bytes, index as u64 * 8)?;
        Ok(u64::from_le_bytes(bytes))
    };
    let address = vm.memory.regions()[0].host_addr + number * PAGE_SIZE;
    let frame = word("/proc/self/pagemap", address / PAGE_SIZE).ok()? & FRAME;
    let flags = word("/proc/kpageflags", frame as usize).ok()?;
    (frame != 0).then_some(flags & KPF_THP != 0)
}

/// How many of a VM's own pages are in huge frames; `None` when the kernel does not tell.
fn count_huge(vm: &TestVm) -> Option<usize> {
    let huge: Option<Vec<bool>> = own_pages().map(|number| is_in_huge_frame(vm, number)).collect();
    Some(huge?.into_iter().filter(|&huge| huge).count())
}

/// One page of each huge page.
fn own_pages() -> impl Iterator<Item = usize> {
    (1..PAGES).step_by(HUGE)
}

/// What a page holds: one of every 512 is the VM's own, and of the others every fifth is zero.
fn content(vm: &TestVm, number: usize) -> [u8; PAGE_SIZE] {
    let is_own = number % HUGE == 1;
    if !is_own && number.is_multiple_of(5) {
        return [0; PAGE_SIZE];
    }
    page(number as u32 + if is_own { 1_000_000 * (1 + vm.id.0) } else { 0 })
}

/// A VM all of whose memory is huge; `None` where there are no huge pages, or none are shown.
fn huge_vm(id: u32) -> Option<TestVm> {
    let vm = TestVm::new(id, PAGES as u32);
    let asked = sys::want_huge_pages(&vm.memory.regions()[0]);
    (0..PAGES).for_each(|number| vm.write(number, &content(&vm, number)));
    (asked.is_ok() && count_huge(&vm) == Some(PAGES / HUGE)).then_some(vm)
}

#[test]
fn a_page_that_stays_private_does_not_hold_the_memory_of_a_huge_one() {
    let mut engine = engine();
    let (Some(a), Some(b)) = (huge_vm(0), huge_vm(1)) else {
        eprintln!("{NONE}");
        return;
    };
    for vm in [&a, &b] {
        vm.attach(&mut engine, "test", DedupMode::On);
        assert_eq!(count_huge(vm), Some(PAGES / HUGE), "nothing is split for nothing");
    }
    settle(&mut engine);
    check_counters(&engine);
    for vm in [&a, &b] {
        assert_eq!(count_huge(vm), Some(0), "VM {} holds huge pages", vm.id);
        (0..PAGES).for_each(|number| assert_eq!(vm.read(number), content(vm, number)));
    }
}

#[test]
fn nor_do_the_rest_of_one_of_which_a_part_is_discarded() {
    let mut engine = engine();
    let Some(vm) = huge_vm(0) else {
        eprintln!("{NONE}");
        return;
    };
    vm.attach(&mut engine, "test", DedupMode::On);
    // From the middle of the second huge page to the middle of the sixth.
    let discarded = HUGE + 100..5 * HUGE + 100;
    let first = LinearIndex(discarded.start as u32);
    engine.discard(vm.id, first, discarded.len() as u32).unwrap();
    assert_eq!(is_in_huge_frame(&vm, 1), Some(true));
    assert_eq!(is_in_huge_frame(&vm, HUGE + 1), Some(false));
    assert_eq!(is_in_huge_frame(&vm, 5 * HUGE + 101), Some(false));
    for number in 0..PAGES {
        let expected =
            if discarded.contains(&number) { [0; PAGE_SIZE] } else { content(&vm, number) };
        assert_eq!(vm.read(number), expected);
    }
}

// The page table does not show such a page as huge, but the kernel keeps its memory in one piece.
#[test]
fn nor_does_one_whose_page_table_was_split_before_its_vm_was_attached() {
    let mut engine = engine();
    let (Some(a), Some(b)) = (huge_vm(0), huge_vm(1)) else {
        eprintln!("{NONE}");
        return;
    };
    for vm in [&a, &b] {
        sys::split_page_tables(&vm.memory.regions()[0], HUGE);
        assert_eq!(count_huge(vm), Some(PAGES / HUGE), "the memory itself is in one piece");
        vm.attach(&mut engine, "test", DedupMode::On);
    }
    settle(&mut engine);
    check_counters(&engine);
    for vm in [&a, &b] {
        assert_eq!(count_huge(vm), Some(0), "VM {} holds huge pages", vm.id);
        (0..PAGES).for_each(|number| assert_eq!(vm.read(number), content(vm, number)));
    }
}
