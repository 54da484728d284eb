//! The counters of an engine, and what folding costs and saves.

use std::collections::BTreeMap;

use super::{Engine, Member};
use crate::agent::Agent;
use crate::knobs::Run;
use crate::memory_count::{MemoryCount, OwnMemory, UnfoldedVm};
use crate::protocol::BrokerStats;
use crate::stats::{DedupStats, DomainStats, Events, VmStats};
use crate::sys::Space;
use crate::{PAGE_SIZE, VmId};

/// What a mapping costs the kernel: 192 bytes of `vm_area_struct` and its part of a maple tree's node
/// of 256 (Linux 6.18, `/proc/slabinfo`).
const VMA_BYTES: u64 = 224;

impl Engine {
    /// What folding does and saves. O(pages that are there), all of it in one piece, unlike
    /// [`stats_with`](Self::stats_with).
    pub fn stats(&self) -> DedupStats {
        let mut count = MemoryCount::default();
        loop {
            match self.stats_with(&mut count, &BTreeMap::new()) {
                Some(stats) => return stats,
                None => count.run(),
            }
        }
    }

    /// What folding does and saves, with VMs that are not attached, if what memory all of them take has
    /// been counted; otherwise the count is to [`run`](MemoryCount::run), and this to be called again.
    /// What the count is of may be some steps old: `private_bytes`, `swapped_pages`, and what follows from
    /// them. All else is of one moment. O(pages / 64 + extents).
    pub fn stats_with(
        &self,
        count: &mut MemoryCount,
        unfolded: &BTreeMap<VmId, UnfoldedVm>,
    ) -> Option<DedupStats> {
        let unfolded = || unfolded.iter().filter(|(vm, _)| !self.members.contains_key(vm));
        let spaces: Vec<(VmId, Space)> =
            unfolded().filter_map(|(&vm, its)| Some((vm, its.space()?))).collect();
        let attached = self.members.iter().map(|(&vm, member)| (vm, member.agent.space()));
        if !count.enlist(attached.chain(spaces.iter().map(|(vm, space)| (*vm, space)))) {
            return None;
        }
        let attached =
            self.members.iter().map(|(&vm, member)| self.vm_stats(vm, member, count.of(vm)));
        let mut vms: Vec<VmStats> =
            attached.chain(unfolded().map(|(&vm, its)| its.stats(vm, count.of(vm)))).collect();
        vms.sort_by_key(|vm| vm.id);
        Some(self.stats_of(vms))
    }

    fn stats_of(&self, vms: Vec<VmStats>) -> DedupStats {
        let brokers: Vec<BrokerStats> =
            self.domains.iter().map(|(name, domain)| domain.broker.stats(name)).collect();
        let live: u64 = brokers.iter().map(|broker| u64::from(broker.live_slots)).sum();
        let page_table_bytes = brokers.iter().map(view_page_table_bytes).sum();
        let domains: Vec<DomainStats> = brokers.into_iter().map(|broker| broker.domain).collect();
        let events = self.events();

        let pages_shared = domains.iter().map(|domain| domain.pages_shared).sum();
        let pages_sharing: u64 = domains.iter().map(|domain| domain.pages_sharing).sum();
        let pages_zero: u64 = vms.iter().map(|vm| vm.zero_pages).sum();
        let saved_bytes = (pages_sharing + pages_zero) * PAGE_SIZE as u64;
        let agents: u64 = self.members.values().map(|member| member.agent.metadata_bytes()).sum();
        let brokers: u64 = domains.iter().map(|domain| domain.metadata_bytes).sum();
        let metadata_bytes = agents + brokers;
        let idle_bytes = (live - pages_shared) * PAGE_SIZE as u64;
        let vma_bytes = self.members.values().map(|member| vma_bytes(&member.agent)).sum();
        let costs = metadata_bytes + vma_bytes + page_table_bytes + idle_bytes;
        DedupStats {
            pages_shared,
            pages_sharing,
            pages_unshared: domains.iter().map(|domain| domain.pages_unshared).sum(),
            stable_node_chains: domains.iter().map(|domain| domain.stable_node_chains).sum(),
            stable_node_dups: domains.iter().map(|domain| domain.stable_node_dups).sum(),
            pages_volatile: vms.iter().map(|vm| vm.volatile_pages).sum(),
            pages_zero,
            knobs: self.knobs,
            full_scans: self.full_scans,
            events,
            saved_bytes,
            metadata_bytes,
            page_table_bytes,
            vma_bytes,
            general_profit: saved_bytes.cast_signed() - costs.cast_signed(),
            resident_bytes: resident_bytes(&domains, &vms),
            vmas_used: self.budget.used(),
            vmas_budget: self.budget.limit(),
            cpu_seconds: self.workers.cpu_time().as_secs_f64(),
            domains,
            vms,
        }
    }

    /// Whether no VM has a page that is folded, or waits to be: the end of unmerging.
    /// O(pages / 64).
    pub fn is_unmerged(&self) -> bool {
        !self.members.values().any(|member| member.agent.is_folded())
    }

    /// Whether mappings that save nothing could not be given back, which is tried again by later passes.
    /// O(VMs).
    pub fn owes_mappings(&self) -> bool {
        self.members.values().any(|member| member.agent.owes_mappings())
    }

    /// What has happened to the pages of all VMs, those that are gone included.
    pub(super) fn events(&self) -> Events {
        let mut events = self.past;
        for member in self.members.values() {
            events.add(member.agent.events());
        }
        events
    }

    fn vm_stats(&self, vm: VmId, member: &Member, own: Option<&OwnMemory>) -> VmStats {
        let broker = self.domains.get(&member.domain).map(|domain| &domain.broker);
        let items = broker.and_then(|broker| broker.vm_items(vm)).unwrap_or_default();
        let mut stats = member.agent.stats(&member.domain, items.waiting, own);
        stats.unmerging_pages = member.agent.unwanted_count(self.knobs.run == Run::Unmerge);
        stats.rmap_items = items.count;
        let saved = (stats.merging_pages + stats.zero_pages) * PAGE_SIZE as u64;
        let costs = items.bytes + member.agent.metadata_bytes() + vma_bytes(&member.agent);
        stats.profit = saved.cast_signed() - costs.cast_signed();
        stats
    }
}

/// At most: an entry of 8 bytes for every slot that was ever looked at.
fn view_page_table_bytes(broker: &BrokerStats) -> u64 {
    (broker.slots_high_water * size_of::<u64>() as u64).next_multiple_of(PAGE_SIZE as u64)
}

/// What the mappings that folding has made of a VM's memory cost the kernel.
fn vma_bytes(agent: &Agent) -> u64 {
    agent.folded_vma_count() * VMA_BYTES
}

fn resident_bytes(domains: &[DomainStats], vms: &[VmStats]) -> Option<u64> {
    let stores: Option<u64> = domains.iter().map(|domain| domain.store_bytes).sum();
    let private: Option<u64> = vms.iter().map(|vm| vm.private_bytes).sum();
    Some(stores? + private?)
}
