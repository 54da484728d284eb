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
        let proposed: u64 = self.members.keys().map(|&vm| self.stable.proposed.of(vm)).sum();
        let total = self.stable.proposed.total();
        ensure!(proposed == total, "{proposed} pages of all VMs are proposed, {total} counted");
        let deferred: u64 = self.members.values().map(|member| member.queue.deferred_count()).sum();
        let total = self.deferred_count;
        ensure!(deferred == total, "{deferred} pages of all VMs are deferred, {total} counted");
        Ok(())
    }
}
