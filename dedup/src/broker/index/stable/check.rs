//! Which nodes are in use, and which are free.

use super::StableTree;
use crate::broker::ids::NodeId;
use crate::broker::ids::check_numbers_of;

impl StableTree {
    /// Verifies that every node is one of those that are in use, or is free, and nothing hangs on it then.
    /// O(nodes).
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(in crate::broker) fn check_free(&self, used: &[NodeId]) -> Result<(), String> {
        let used = used.iter().map(|id| id.index());
        check_numbers_of("node", self.nodes.capacity(), used, self.nodes.free())?;
        self.nodes.check()?;
        let has_items =
            |&index: &usize| self.nodes.get(index).is_some_and(|node| node.head.is_some());
        match self.nodes.free().find(has_items) {
            Some(index) => Err(format!("node {index} is free, and has items")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
impl StableTree {
    /// Has a node that is in use be free, too.
    pub(in crate::broker) fn free_twice(&mut self, id: NodeId) {
        self.nodes.free_in_use(id.index());
    }
}
