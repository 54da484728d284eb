//! Mappings that fail when the old one is gone, on real memory.

#![allow(clippy::cast_possible_truncation, reason = "page numbers are small")]

use std::sync::Arc;

use super::*;
use crate::sys::{AnonymousMemory, Faults, GuestMemory, Memfd, Protected, Space, Userfaultfd};
use crate::{LinearIndex, Slot};

const PAGES: u32 = 8;

/// The addresses of a memory.
fn addresses(memory: &AnonymousMemory) -> Range<usize> {
    let region = memory.regions()[0];
    region.host_addr..region.host_addr + region.len_bytes()
}

fn store() -> Memfd {
    let store = Memfd::new(PAGES).unwrap();
    for slot in 0..PAGES {
        store.write(Slot(slot), &[slot as u8 + 1; PAGE_SIZE]).unwrap();
    }
    store
}

fn first_bytes(memory: &AnonymousMemory) -> Vec<u8> {
    let mut byte = [0];
    let read = |page| {
        memory.read(page * PAGE_SIZE, &mut byte);
        byte[0]
    };
    (0..PAGES as usize).map(read).collect()
}

#[test]
fn a_mapping_that_leaves_a_gap_is_made_in_the_gap() {
    for refusals in [0, 3] {
        let memory = Arc::new(AnonymousMemory::new(PAGES).unwrap());
        memory.write(0, &[9; PAGE_SIZE]);
        let space = Space::new(memory.clone()).unwrap();
        let store = store();
        let span = space.span(LinearIndex(0), PAGES);
        faults::inject(addresses(&memory), 0, 100, refusals);
        span.part(2, 4).map_file(store.raw(), 2 * PAGE_SIZE as u64).unwrap();
        assert_eq!(first_bytes(&memory), [9, 0, 3, 4, 5, 6, 0, 0]);
        faults::inject(addresses(&memory), 0, 100, refusals);
        span.part(3, 2).map_anonymous().unwrap();
        assert_eq!(first_bytes(&memory), [9, 0, 3, 0, 0, 6, 0, 0]);
        memory.write(0, &vec![7; PAGES as usize * PAGE_SIZE]);
        assert_eq!(first_bytes(&memory), [7; PAGES as usize], "all of it can be written");
    }
}

#[test]
fn a_refused_mapping_says_which_pages_it_has_mapped_all_the_same() {
    let memory = Arc::new(AnonymousMemory::new(PAGES).unwrap());
    memory.write(0, &vec![9; PAGES as usize * PAGE_SIZE]);
    let space = Space::new(memory.clone()).unwrap();
    let store = store();
    let span = space.span(LinearIndex(0), PAGES);
    faults::inject(addresses(&memory), 0, 0, 0);
    let error = span.map_file(store.raw(), 0).unwrap_err();
    assert_eq!((error.source.raw_os_error(), error.replaced), (Some(libc::ENOMEM), vec![]));
    assert_eq!(first_bytes(&memory), [9; PAGES as usize]);
    // What no kernel of today does: a part of the old mapping goes.
    faults::inject(addresses(&memory), 0, 40, 1);
    let error = span.map_file(store.raw(), 0).unwrap_err();
    assert_eq!(error.replaced.iter().cloned().flatten().collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(first_bytes(&memory), [1, 2, 3, 9, 9, 9, 9, 9]);
}

#[test]
fn a_gap_is_mapped_again_before_a_writer_is_woken() {
    let memory = Arc::new(AnonymousMemory::new(PAGES).unwrap());
    memory.write(0, &vec![1; PAGES as usize * PAGE_SIZE]);
    let space = Space::new(memory.clone()).unwrap();
    let store = store();
    let uffd = Userfaultfd::new(Faults::All).unwrap();
    let span = space.span(LinearIndex(0), PAGES);
    uffd.register(span).unwrap();
    let mut protected = Protected::new(&uffd, span).unwrap();
    faults::inject(addresses(&memory), 0, 100, 2);
    protected.map_slots(0, 1, &store, Slot(0)).unwrap();
    faults::inject(addresses(&memory), 0, 40, 2);
    protected.map_anonymous(2, 5).unwrap_err();
    drop(protected);
    assert_eq!(first_bytes(&memory), [1, 1, 0, 0, 1, 1, 1, 1]);
    // Who wrote to a page that is still protected would sleep for good.
    for page in 0..PAGES as usize {
        memory.swap(page * PAGE_SIZE, 7);
    }
    let mut bytes = [0; PAGE_SIZE];
    memory.read(0, &mut bytes);
    assert_eq!((bytes[0], bytes[8]), (7, 1), "a slot's bytes around what was written");
}
