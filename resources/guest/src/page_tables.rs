//! The page tables the guest starts on: an identity map of the first 3 GiB.
//!
//! Every level is user-accessible and writable, because the guest runs at CPL 3, and the leaves
//! are 2 MiB pages. Memory that the VM does not have is mapped too; the guest never touches it.

use crate::PAGE_BYTES;
use crate::layout::{MAX_MEMORY_BYTES, PAGE_TABLES_GPA};

const PRESENT_WRITABLE_USER: u64 = 0b111;
const PAGE_SIZE: u64 = 1 << 7;
const LEAF_BYTES: u64 = 2 << 20;
const DIRECTORY_COUNT: u64 = MAX_MEMORY_BYTES >> 30;
const ENTRY_BYTES: u64 = 8;

/// Guest-physical address of the top table: what CR3 holds on entry.
pub const CR3: u64 = PAGE_TABLES_GPA;
const POINTERS_GPA: u64 = PAGE_TABLES_GPA + PAGE_BYTES;
const DIRECTORIES_GPA: u64 = POINTERS_GPA + PAGE_BYTES;
/// First address above the page tables.
pub const PAGE_TABLES_END_GPA: u64 = DIRECTORIES_GPA + DIRECTORY_COUNT * PAGE_BYTES;

/// Every entry that is not zero: its guest-physical address and its value (little-endian, 8 bytes).
///
/// The rest of the tables must be zero.
pub fn entries() -> impl Iterator<Item = (u64, u64)> {
    let top = (CR3, POINTERS_GPA | PRESENT_WRITABLE_USER);
    let pointers = (0..DIRECTORY_COUNT).map(|index| {
        (
            POINTERS_GPA + index * ENTRY_BYTES,
            (DIRECTORIES_GPA + index * PAGE_BYTES) | PRESENT_WRITABLE_USER,
        )
    });
    let leaves = (0..MAX_MEMORY_BYTES / LEAF_BYTES).map(|index| {
        (
            DIRECTORIES_GPA + index * ENTRY_BYTES,
            (index * LEAF_BYTES) | PAGE_SIZE | PRESENT_WRITABLE_USER,
        )
    });
    core::iter::once(top).chain(pointers).chain(leaves)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::layout::STACK_BOTTOM_GPA;

    #[test]
    fn every_address_below_three_gib_maps_to_itself() {
        let memory: HashMap<u64, u64> = entries().collect();
        let table = |entry: u64| entry & 0x000f_ffff_ffff_f000;
        for address in (0..MAX_MEMORY_BYTES).step_by(0x1f_f000) {
            let pml4 = memory[&CR3];
            let pdpt = memory[&(table(pml4) + (address >> 30) * 8)];
            let leaf = memory[&(table(pdpt) + (address >> 21 & 511) * 8)];
            assert_eq!(leaf & PAGE_SIZE, PAGE_SIZE);
            assert_eq!(table(leaf) + (address & 0x1f_ffff), address);
            for entry in [pml4, pdpt, leaf] {
                assert_eq!(entry & 7, PRESENT_WRITABLE_USER);
            }
        }
    }

    #[test]
    fn tables_stay_below_the_stack() {
        let last = entries().map(|(gpa, _)| gpa).max();
        assert_eq!(last, Some(PAGE_TABLES_END_GPA - 8));
        const { assert!(PAGE_TABLES_END_GPA <= STACK_BOTTOM_GPA) };
    }
}
