//! The guests' RAM in a process, seen through the kernel.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use super::proc::{Mapping, Store, mappings, stores};

/// Addresses of a process, from `start` up to `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// The first address.
    pub start: u64,
    /// One above the last.
    pub end: u64,
}

impl Interval {
    fn overlaps(&self, mapping: &Mapping) -> bool {
        self.start < mapping.end && mapping.start < self.end
    }
}

/// What the kernel holds for guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Their private pages, in memory and in swap.
    pub private_bytes: u64,
    /// The stores of their process.
    pub store_bytes: u64,
    /// Lines of `/proc/PID/maps` in their RAM. One that lies in the RAM of two VMs counts twice.
    pub count_mappings: u64,
}

impl Held {
    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.private_bytes + self.store_bytes
    }
}

/// What the kernel holds for guests whose RAM is at `ram` in process `pid`.
pub fn held(pid: u32, ram: &[Interval]) -> Held {
    let mappings = mappings(pid);
    let inside = |one: &&Mapping| ram.iter().any(|interval| interval.overlaps(one));
    let lines = |interval: &Interval| mappings.iter().filter(|one| interval.overlaps(one)).count();
    Held {
        private_bytes: mappings
            .iter()
            .filter(inside)
            .map(|mapping| mapping.anonymous_bytes + mapping.swap_bytes)
            .sum(),
        store_bytes: stores(pid).iter().map(|store| store.held_bytes).sum(),
        count_mappings: ram.iter().map(|interval| lines(interval) as u64).sum(),
    }
}

/// The mappings of guest RAM in a process that does not report where it is: what is write-protected
/// through userfaultfd.
pub fn guest_mappings(pid: u32) -> Vec<Mapping> {
    mappings(pid).into_iter().filter(|one| one.flags.iter().any(|flag| flag == "uw")).collect()
}

/// The only store of a process.
pub fn store(pid: u32) -> Store {
    let stores = stores(pid);
    assert_eq!(stores.len(), 1, "{stores:?}");
    stores[0].clone()
}

/// Inverts the byte at `address` of another process.
pub fn spoil_byte(pid: u32, address: u64) {
    invert(&format!("/proc/{pid}/mem"), address);
}

/// Inverts the byte at `offset` of a store.
pub fn spoil_store(store: &Store, offset: u64) {
    // A descriptor of its own on the same file; its mode forbids writing to all but root.
    invert(&store.link, offset);
}

fn invert(path: &str, at: u64) {
    let file: File = OpenOptions::new().read(true).write(true).open(path).expect("it opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("the byte is there");
    file.write_all_at(&[!byte[0]], at).expect("the byte is written");
}
