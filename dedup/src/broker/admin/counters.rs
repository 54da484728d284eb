//! What a broker counts, of its domain and of each VM.

use crate::broker::rmap::Rmap;
use crate::broker::{LocalBroker, Member};
use crate::stats::DomainStats;
use crate::{LinearIndex, VmId};

impl LocalBroker {
    /// The counters of the domain called `name`.
    pub fn stats(&self, name: &str) -> DomainStats {
        DomainStats {
            name: name.to_owned(),
            pages_shared: self.stable.shared,
            pages_sharing: self.stable.sharers - self.stable.shared,
            pages_unshared: self.unstable.len() as u64 + self.stable.proposed.total()
                - self.deferred_count,
            stable_node_chains: self.stable.chains.len(),
            stable_node_dups: self.stable.chains.dup_count,
            store_bytes: self.store_bytes(),
            metadata_bytes: self.heap_bytes() as u64,
        }
    }

    /// Bytes that the kernel holds for the store; `None` if it cannot be found out.
    pub(crate) fn store_bytes(&self) -> Option<u64> {
        self.store.memfd().resident_bytes().ok()
    }

    /// Pages that were looked at for [`directives`](crate::protocol::Broker::directives) so far, whether
    /// there was anything to direct or not: what polls have cost.
    #[cfg(any(test, feature = "internals"))]
    pub fn polled_pages(&self) -> u64 {
        self.polled_pages
    }

    /// Slots that hold bytes, or are reserved for some.
    pub(crate) fn live_slots(&self) -> u32 {
        self.store.slots.live()
    }

    /// One above the highest slot that was ever in use.
    pub(crate) fn slots_high_water(&self) -> usize {
        self.store.slots.high_water()
    }

    /// The VM's items in the trees that share nothing: those on the unstable tree, and those that
    /// are proposed, but for those that its agent has deferred.
    pub(crate) fn waiting_count(&self, vm: VmId) -> Option<u64> {
        let member = self.members.get(&vm)?;
        Some(member.waiting + self.stable.proposed.of(vm) - member.queue.deferred_count())
    }

    /// Items that take memory for a VM: none for parts of it that nothing was ever offered from.
    pub(crate) fn item_count(&self, vm: VmId) -> u64 {
        self.members.get(&vm).map_or(0, |member| self.rmap.count_made(&member.items))
    }

    /// Bytes of a VM's items.
    pub(crate) fn item_bytes(&self, vm: VmId) -> u64 {
        self.item_count(vm) * Rmap::ITEM_BYTES as u64
    }

    fn heap_bytes(&self) -> usize {
        let members: usize = self
            .members
            .values()
            .map(|member| {
                size_of::<Member>()
                    + member.items.heap_bytes()
                    + member.extents.heap_bytes()
                    + member.awaiting_ack.len() * size_of::<LinearIndex>() * 3 / 2
                    + member.queue.heap_bytes()
                    + member.breaks.heap_bytes()
            })
            .sum();
        self.stable.heap_bytes()
            + self.unstable.heap_bytes()
            + self.rmap.heap_bytes()
            + self.store.slots.heap_bytes()
            + self.contested.heap_bytes()
            + members
    }
}
