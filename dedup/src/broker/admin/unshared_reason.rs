//! Which tree a page is in, and why it shares nothing if it does not.

use std::collections::BTreeMap;

use crate::broker::LocalBroker;
use crate::broker::ids::NodeId;
use crate::broker::index::stable::node::Stage;
use crate::broker::rmap::RmapItem;
use crate::extents::ExtentMap;
use crate::fingerprint::Fingerprint;
use crate::protocol::{ItemState, UnsharedReason};
use crate::{LinearIndex, PAGE_SIZE, VmId};

impl LocalBroker {
    /// Which tree a page's item is in; in none if there is no such page. O(1).
    pub(crate) fn item_state(&self, vm: VmId, linear: LinearIndex) -> ItemState {
        let Ok(item) = self.item(vm, linear) else { return ItemState::Loose };
        if self.is_deferred(item) {
            let is_retried = self.is_retried(item);
            return if is_retried { ItemState::Retried } else { ItemState::Deferred };
        }
        match self.rmap.item(item) {
            RmapItem::Loose(_) => ItemState::Loose,
            RmapItem::Collided(..) => ItemState::Collided,
            RmapItem::Waiting(..) => ItemState::Waiting,
            RmapItem::Proposed { .. } => ItemState::Proposed,
            RmapItem::Stable(link) => ItemState::Shared(self.stable.node(link.node).slot()),
        }
    }

    /// Which pages of a VM cover which slots, as its agent has reported; `None` for one that is not
    /// registered.
    pub(crate) fn extents(&self, vm: VmId) -> Option<&ExtentMap> {
        self.members.get(&vm).map(|member| &member.extents)
    }

    /// Why a page shares nothing; `None` when it does, or is in no tree. O(dups), or, where
    /// nodes are kept apart, O(VMs).
    pub(crate) fn unshared_reason(&self, vm: VmId, linear: LinearIndex) -> Option<UnsharedReason> {
        match self.rmap.item(self.item(vm, linear).ok()?) {
            RmapItem::Loose(_) | RmapItem::Stable(_) => None,
            RmapItem::Collided(..) => Some(UnsharedReason::Alone),
            RmapItem::Waiting(key, _) => Some(self.waiting_reason(vm, key)),
            RmapItem::Proposed { link, role } => {
                let has_no_slot = self.stable.node(link.node).stage() == Stage::Matched;
                let member = self.members.get(&vm);
                let is_lacking = member.is_some_and(|m| m.queue.is_lacking(linear));
                let no_slot = role.is_undirected() && has_no_slot && is_lacking;
                Some(if no_slot { UnsharedReason::NoSlot } else { UnsharedReason::Matched })
            }
        }
    }

    /// Why a page waits on the unstable tree.
    fn waiting_reason(&self, vm: VmId, key: Fingerprint) -> UnsharedReason {
        let nodes = self.stable.nodes_of(key);
        let max = self.stable.max_page_sharing();
        let is_moving = |id: &NodeId| self.moves.contains_key(id) || self.is_target(*id);
        if nodes.iter().any(|id| is_moving(id) && self.stable.node(*id).load() < max) {
            // It is proposed to one of them when the move ends.
            return UnsharedReason::Matched;
        }
        if !nodes.is_empty() {
            let slot = |&id: &NodeId| self.stable.node(id).filled_slot();
            return UnsharedReason::Full(nodes.iter().filter_map(slot).collect());
        }
        if self.merge_across_nodes {
            return UnsharedReason::Alone;
        }
        // The salt that makes a node's key of a fingerprint makes the fingerprint of the key.
        let mut numa_nodes = self.numa_nodes_with(self.key(vm, key));
        let own = self.members.get(&vm).map(|member| member.numa_node);
        numa_nodes.retain(|&numa_node| Some(numa_node) != own);
        if numa_nodes.is_empty() {
            UnsharedReason::Alone
        } else {
            UnsharedReason::OtherNumaNodes(numa_nodes)
        }
    }

    /// Whether pages of these bytes are in the trees, on whatever NUMA node. O(VMs) expected.
    pub(crate) fn has_equal(&self, page: &[u8; PAGE_SIZE]) -> bool {
        self.is_in_trees(page)
            || !self.numa_nodes_with(self.secret.fingerprint(page)).is_empty()
            || !self.contested.is_empty()
                && !self.numa_nodes_with(self.secret.identity(page).key()).is_empty()
    }

    /// Whether pages of these bytes are in the trees under keys without the salt of a NUMA node. O(1) expected.
    fn is_in_trees(&self, page: &[u8; PAGE_SIZE]) -> bool {
        let is_known = |key| {
            !self.stable.nodes_of(key).is_empty() || self.unstable.find(&self.rmap, key).is_some()
        };
        is_known(self.secret.fingerprint(page))
            || !self.contested.is_empty() && is_known(self.secret.identity(page).key())
    }

    /// The NUMA nodes of VMs on which pages of a content are in the trees, ascending. O(VMs) expected.
    fn numa_nodes_with(&self, fingerprint: Fingerprint) -> Vec<u32> {
        let by_numa_node: BTreeMap<u32, VmId> =
            self.members.iter().map(|(&vm, member)| (member.numa_node, vm)).collect();
        let is_known = |vm: VmId| {
            let key = self.key(vm, fingerprint);
            !self.stable.nodes_of(key).is_empty() || self.unstable.find(&self.rmap, key).is_some()
        };
        by_numa_node
            .into_iter()
            .filter(|&(_, vm)| is_known(vm))
            .map(|(numa_node, _)| numa_node)
            .collect()
    }
}
