//! The numbers of nodes, chains and chunks of items: each is in use or free, and never both.

use super::{IndexError, ensure};
use crate::broker::LocalBroker;
use crate::broker::index::stable::chain::Entry;

impl LocalBroker {
    /// Verifies what is free against what is in use. O(nodes + pages / 4096).
    pub(super) fn check_numbers(&self) -> Result<(), IndexError> {
        let (mut nodes, mut chains) = (Vec::new(), Vec::new());
        for entry in self.stable.entries() {
            match entry {
                Entry::Node(id) => nodes.push(id),
                Entry::Chain(id) => {
                    nodes.extend_from_slice(self.stable.chains.dups(id));
                    chains.push(id);
                }
            }
        }
        self.stable.check_free(&nodes).map_err(IndexError)?;
        self.stable.chains.check_free(&chains).map_err(IndexError)?;
        let ranges = self.members.iter().map(|(&vm, member)| (vm, &member.items));
        self.rmap.check(ranges).map_err(IndexError)?;
        let pending: u64 = self.members.keys().map(|&vm| self.stable.pending.of(vm)).sum();
        let total = self.stable.pending.total();
        ensure!(pending == total, "{pending} pages of all VMs are pending, {total} counted");
        let put_off: u64 = self.members.values().map(|member| member.queue.put_off_count()).sum();
        let total = self.put_off_count;
        ensure!(put_off == total, "{put_off} pages of all VMs are put off, {total} counted");
        Ok(())
    }
}

/// Verifies that each of so many numbers is in use or free, and just once.
///
/// # Errors
///
/// What does not hold of `what`.
pub(in crate::broker) fn check_numbers_of(
    what: &str,
    count: usize,
    used: impl Iterator<Item = usize>,
    free: impl Iterator<Item = usize>,
) -> Result<(), String> {
    let mut seen = vec![false; count];
    for number in used {
        let Some(seen) = seen.get_mut(number) else {
            return Err(format!("{what} {number} is in use, and there are {count}"));
        };
        if std::mem::replace(seen, true) {
            return Err(format!("{what} {number} is in use twice"));
        }
    }
    for number in free {
        let Some(seen) = seen.get_mut(number) else {
            return Err(format!("{what} {number} is free, and there are {count}"));
        };
        if std::mem::replace(seen, true) {
            return Err(format!("{what} {number} is free, and is in use or free already"));
        }
    }
    match seen.iter().position(|seen| !seen) {
        Some(number) => Err(format!("{what} {number} is neither in use nor free")),
        None => Ok(()),
    }
}
