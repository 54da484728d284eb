//! Which nodes are in use, and which are free.

use super::StableTree;
use crate::broker::check::check_numbers_of;
use crate::broker::ids::NodeId;

impl StableTree {
    /// Verifies that every node is one of those that are in use, or is free, and nothing hangs on it then.
    /// O(nodes).
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(in crate::broker) fn check_free(&self, used: &[NodeId]) -> Result<(), String> {
        let used = used.iter().map(|id| id.index());
        let free = self.free.iter().map(|id| id.index());
        check_numbers_of("node", self.nodes.len(), used, free)?;
        match self.free.iter().find(|id| self.nodes[id.index()].head.is_some()) {
            Some(id) => Err(format!("{id:?} is free, and has items")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
impl StableTree {
    /// Has a node that is in use be free, too.
    pub(in crate::broker) fn free_twice(&mut self, id: NodeId) {
        self.free.push(id);
    }
}
