//! How many pages are proposed to nodes, in all and of each VM.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::VmId;

/// How many pages of each VM are proposed. Exact at all times.
#[derive(Debug, Default)]
pub(in crate::broker) struct ProposedCounts {
    total: u64,
    /// VMs without any are not in it.
    by_vm: BTreeMap<VmId, u64>,
}

impl ProposedCounts {
    /// Counts one page more. O(log VMs).
    pub(in crate::broker) fn add(&mut self, vm: VmId) {
        self.total += 1;
        *self.by_vm.entry(vm).or_default() += 1;
    }

    /// Counts one page less, which was counted before. O(log VMs).
    pub(in crate::broker) fn remove(&mut self, vm: VmId) {
        let Entry::Occupied(mut count) = self.by_vm.entry(vm) else {
            unreachable!("a page of VM {vm} was never proposed")
        };
        self.total -= 1;
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }

    /// Counts the pages of a VM for another, which has none.
    pub(in crate::broker) fn rename(&mut self, vm: VmId, to: VmId) {
        if let Some(count) = self.by_vm.remove(&vm) {
            self.by_vm.insert(to, count);
        }
    }

    /// The proposed pages of a VM.
    pub(in crate::broker) fn of(&self, vm: VmId) -> u64 {
        self.by_vm.get(&vm).copied().unwrap_or(0)
    }

    /// The proposed pages of all VMs.
    pub(in crate::broker) fn total(&self) -> u64 {
        self.total
    }

    pub(in crate::broker) fn heap_bytes(&self) -> usize {
        self.by_vm.len() * size_of::<(VmId, u64)>()
    }
}
