//! What can be changed of a broker while it works.

use crate::VmId;
use crate::broker::{LocalBroker, MIN_PAGE_SHARING};
use crate::fingerprint::Fingerprint;
use crate::protocol::{BrokerError, MaxPageSharingError};

impl LocalBroker {
    /// How many pages may share a slot.
    pub fn max_page_sharing(&self) -> u32 {
        self.stable.max_page_sharing()
    }

    /// Nodes that are shared or about to be: those that keep the knobs from being changed.
    pub fn node_count(&self) -> usize {
        self.stable.node_count()
    }

    /// Has at most `limit` pages share a slot from now on. O(1).
    ///
    /// # Errors
    ///
    /// When that is fewer than two, or anything is shared or about to be; nothing has changed.
    pub fn set_max_page_sharing(&mut self, limit: u32) -> Result<(), MaxPageSharingError> {
        if limit == self.max_page_sharing() {
            return Ok(());
        }
        if limit < MIN_PAGE_SHARING {
            return Err(MaxPageSharingError::TooSmall(limit));
        }
        if self.node_count() > 0 {
            return Err(MaxPageSharingError::Busy { slots: self.node_count() });
        }
        self.stable.set_max_page_sharing(limit);
        Ok(())
    }

    /// Whether any page is shared, about to be, or waits for a twin.
    pub fn is_empty(&self) -> bool {
        self.node_count() == 0 && self.unstable.len() == 0
    }

    /// Allows that pages on different NUMA nodes share, which is so from the beginning, or forbids
    /// it. Only while the broker [is empty](Self::is_empty): what stands in the trees was placed by
    /// the other rule.
    pub(crate) fn set_merge_across_nodes(&mut self, allowed: bool) {
        debug_assert!(self.is_empty() || allowed == self.merge_across_nodes);
        self.merge_across_nodes = allowed;
    }

    /// Notes on which NUMA node a VM's memory is. Only while none of its pages is in a tree.
    pub(crate) fn set_numa_node(&mut self, vm: VmId, numa_node: u32) -> Result<(), BrokerError> {
        self.member_mut(vm)?.numa_node = numa_node;
        Ok(())
    }

    /// The NUMA node that a VM's memory is on: 0 if it was not set.
    pub(crate) fn numa_node(&self, vm: VmId) -> u32 {
        self.members.get(&vm).map_or(0, |member| member.numa_node)
    }

    /// The key under which a VM's page is looked for: pages that may not share must not meet.
    pub(in crate::broker) fn key(&self, vm: VmId, fingerprint: Fingerprint) -> Fingerprint {
        if self.merge_across_nodes {
            return fingerprint;
        }
        let numa_node = self.numa_node(vm);
        // Any odd number does: different nodes get different keys, spread as evenly as before.
        let salt = u64::from(numa_node).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Fingerprint(fingerprint.0 ^ salt)
    }
}
