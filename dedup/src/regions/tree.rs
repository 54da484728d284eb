//! The interval tree: an AVL tree by first page, in which each node has the highest end of its
//! subtree. Source: Cormen et al., *Introduction to Algorithms*, 14.3; the kernel's
//! `include/linux/interval_tree_generic.h`.

use std::cmp::Ordering;
use std::num::NonZeroU32;
use std::ops::ControlFlow;

use super::Visits;
use crate::{LinearIndex, Region};

/// A node's place in the arena; it keeps it for as long as the region is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RegionId(NonZeroU32);

impl RegionId {
    fn from_index(index: usize) -> Option<Self> {
        u32::try_from(index + 1).ok().and_then(NonZeroU32::new).map(Self)
    }

    pub(super) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) region: Region,
    pub(super) left: Option<RegionId>,
    pub(super) right: Option<RegionId>,
    /// The highest end in the subtree.
    pub(super) max_end: LinearIndex,
    /// Nodes on the longest way down, this one included. At most 46 in 2^32 nodes.
    pub(super) height: u8,
}

const _: () = assert!(size_of::<Node>() <= 40 && size_of::<Option<RegionId>>() == 4);

/// The order of the tree. No two regions have the same guest-physical address.
pub(super) fn key(region: &Region) -> (LinearIndex, u64) {
    (region.linear, region.gpa)
}

/// The tree and the arena of its nodes.
#[derive(Debug, Default)]
pub(super) struct IntervalTree {
    pub(super) root: Option<RegionId>,
    pub(super) nodes: Vec<Node>,
    pub(super) free: Vec<RegionId>,
}

impl IntervalTree {
    pub(super) fn region(&self, id: RegionId) -> &Region {
        &self.node(id).region
    }

    pub(super) fn node(&self, id: RegionId) -> &Node {
        &self.nodes[id.index()]
    }

    /// How many more regions there are ids for.
    pub(super) fn room(&self) -> usize {
        self.free.len() + (u32::MAX as usize).saturating_sub(self.nodes.len())
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.free.capacity() * size_of::<RegionId>()
    }

    /// Adds a region, whose key must not be there; `None` when ids run out. O(log n).
    pub(super) fn insert(&mut self, region: Region) -> Option<RegionId> {
        let node = Node { region, left: None, right: None, max_end: region.end(), height: 1 };
        let id = if let Some(id) = self.free.pop() {
            self.nodes[id.index()] = node;
            id
        } else {
            let id = RegionId::from_index(self.nodes.len())?;
            self.nodes.push(node);
            id
        };
        self.root = Some(self.insert_below(self.root, id));
        Some(id)
    }

    /// Takes a region out that is there. O(log n).
    pub(super) fn remove(&mut self, id: RegionId) -> Region {
        let region = *self.region(id);
        self.root = self.remove_below(self.root, id);
        self.free.push(id);
        region
    }

    /// Has a region's pages be at another host address, which is no part of its key.
    pub(super) fn set_host_addr(&mut self, id: RegionId, host_addr: usize) {
        self.node_mut(id).region.host_addr = host_addr;
    }

    /// Calls `visit` with each region that has a page from `first` up to and including `last`, in
    /// the order of the tree.
    pub(super) fn overlapping(
        &self,
        first: LinearIndex,
        last: LinearIndex,
        mut visit: impl FnMut(&Region) -> ControlFlow<()>,
    ) -> Visits {
        let mut visits = Visits::default();
        let flow = self.overlapping_below(self.root, (first, last), &mut visit, &mut visits);
        Visits { stopped: flow.is_break(), ..visits }
    }

    /// Calls `visit` with each region, in the order of the tree.
    pub(super) fn all(&self, mut visit: impl FnMut(&Region) -> ControlFlow<()>) -> Visits {
        let mut visits = Visits::default();
        let flow = self.all_below(self.root, &mut visit, &mut visits);
        Visits { stopped: flow.is_break(), ..visits }
    }

    fn overlapping_below(
        &self,
        mut next: Option<RegionId>,
        (first, last): (LinearIndex, LinearIndex),
        visit: &mut impl FnMut(&Region) -> ControlFlow<()>,
        visits: &mut Visits,
    ) -> ControlFlow<()> {
        while let Some(id) = next {
            let node = self.node(id);
            visits.nodes += 1;
            if node.max_end <= first {
                break;
            }
            if last < node.region.linear {
                next = node.left;
                continue;
            }
            // What is to the left begins no later: whatever there ends after `first` overlaps.
            self.overlapping_below(node.left, (first, last), visit, visits)?;
            if first < node.region.end() {
                visits.intervals += 1;
                visit(&node.region)?;
            }
            next = node.right;
        }
        ControlFlow::Continue(())
    }

    fn all_below(
        &self,
        mut next: Option<RegionId>,
        visit: &mut impl FnMut(&Region) -> ControlFlow<()>,
        visits: &mut Visits,
    ) -> ControlFlow<()> {
        while let Some(id) = next {
            let node = self.node(id);
            visits.nodes += 1;
            self.all_below(node.left, visit, visits)?;
            visits.intervals += 1;
            visit(&node.region)?;
            next = node.right;
        }
        ControlFlow::Continue(())
    }

    /// Puts the new node `id` below `root` and returns the subtree's root.
    fn insert_below(&mut self, root: Option<RegionId>, id: RegionId) -> RegionId {
        let Some(root) = root else { return id };
        let Node { left, right, .. } = *self.node(root);
        if self.order(id, root) == Ordering::Less {
            self.node_mut(root).left = Some(self.insert_below(left, id));
        } else {
            self.node_mut(root).right = Some(self.insert_below(right, id));
        }
        self.balance(root)
    }

    /// Unlinks node `id`, which is below `root`, and returns the subtree's root.
    fn remove_below(&mut self, root: Option<RegionId>, id: RegionId) -> Option<RegionId> {
        let root = root?;
        let Node { left, right, .. } = *self.node(root);
        match self.order(id, root) {
            Ordering::Less => self.node_mut(root).left = self.remove_below(left, id),
            Ordering::Greater => self.node_mut(root).right = self.remove_below(right, id),
            Ordering::Equal => {
                let Some(right) = right else { return left };
                let (first, rest) = self.take_first(right);
                let node = self.node_mut(first);
                (node.left, node.right) = (left, rest);
                return Some(self.balance(first));
            }
        }
        Some(self.balance(root))
    }

    /// Unlinks the first node below `root`; returns it and the root of the rest.
    fn take_first(&mut self, root: RegionId) -> (RegionId, Option<RegionId>) {
        let Node { left, right, .. } = *self.node(root);
        let Some(left) = left else { return (root, right) };
        let (first, rest) = self.take_first(left);
        self.node_mut(root).left = rest;
        (first, Some(self.balance(root)))
    }

    /// Makes the heights of the node's subtrees, which are balanced, differ by one at most, where
    /// they differed by two at most; returns the root.
    fn balance(&mut self, root: RegionId) -> RegionId {
        let Node { left, right, .. } = *self.node(root);
        match (left, right) {
            (Some(left), _) if self.height(Some(left)) > self.height(right) + 1 => {
                let Node { left: outer, right: inner, .. } = *self.node(left);
                if self.height(inner) > self.height(outer) {
                    self.node_mut(root).left = Some(self.rotate_left(left));
                }
                self.rotate_right(root)
            }
            (_, Some(right)) if self.height(Some(right)) > self.height(left) + 1 => {
                let Node { left: inner, right: outer, .. } = *self.node(right);
                if self.height(inner) > self.height(outer) {
                    self.node_mut(root).right = Some(self.rotate_right(right));
                }
                self.rotate_left(root)
            }
            _ => {
                self.update(root);
                root
            }
        }
    }

    fn rotate_left(&mut self, root: RegionId) -> RegionId {
        let Some(up) = self.node(root).right else { return root };
        self.node_mut(root).right = self.node(up).left;
        self.node_mut(up).left = Some(root);
        self.update(root);
        self.update(up);
        up
    }

    fn rotate_right(&mut self, root: RegionId) -> RegionId {
        let Some(up) = self.node(root).left else { return root };
        self.node_mut(root).left = self.node(up).right;
        self.node_mut(up).right = Some(root);
        self.update(root);
        self.update(up);
        up
    }

    /// Works out what a node holds of its subtree from its children.
    fn update(&mut self, id: RegionId) {
        let Node { region, left, right, .. } = *self.node(id);
        let end = |child: Option<RegionId>| child.map(|child| self.node(child).max_end);
        let max_end = region.end().max(end(left).max(end(right)).unwrap_or(region.end()));
        let height = 1 + self.height(left).max(self.height(right));
        let node = self.node_mut(id);
        (node.max_end, node.height) = (max_end, height);
    }

    fn order(&self, one: RegionId, other: RegionId) -> Ordering {
        key(self.region(one)).cmp(&key(self.region(other)))
    }

    fn height(&self, id: Option<RegionId>) -> u8 {
        id.map_or(0, |id| self.node(id).height)
    }

    fn node_mut(&mut self, id: RegionId) -> &mut Node {
        &mut self.nodes[id.index()]
    }
}
