//! Every invariant of the regions. For tests and for `check` requests.

use super::Regions;
use super::tree::{RegionId, key};
use crate::{LinearIndex, Region};

/// An invariant that does not hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct RegionsCheckError(String);

macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(RegionsCheckError(format!($($message)+)));
        }
    };
}

/// What a subtree turns out to be.
#[derive(Default)]
struct Subtree {
    count: usize,
    height: u8,
    /// None of nothing.
    max_end: Option<LinearIndex>,
}

impl Regions {
    /// Verifies order, balance and highest ends of the tree, that each node is either in it or
    /// free, and that both indexes hold the same regions. O(n log n).
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), RegionsCheckError> {
        let mut last = None;
        let tree = self.check_below(self.tree.root, &mut last)?;
        let (nodes, free) = (self.tree.nodes.len(), self.tree.free.len());
        ensure!(tree.count + free == nodes, "{} in the tree, {free} free of {nodes}", tree.count);
        ensure!(tree.count == self.len(), "{} in the tree, {} by guest", tree.count, self.len());

        let mut end = 0;
        for (&gpa, &id) in &self.by_guest {
            let region = self.tree.region(id);
            ensure!(region.gpa == gpa, "{region:?} is listed at {gpa:#x}");
            ensure!(gpa >= end, "{region:?} begins before {end:#x}");
            end = gpa + region.len_bytes() as u64;
        }
        Ok(())
    }

    fn check_below(
        &self,
        id: Option<RegionId>,
        last: &mut Option<Region>,
    ) -> Result<Subtree, RegionsCheckError> {
        let Some(id) = id else { return Ok(Subtree::default()) };
        let node = self.tree.node(id);
        let region = node.region;
        let left = self.check_below(node.left, last)?;
        let ordered = last.is_none_or(|last| key(&last) < key(&region));
        ensure!(ordered, "{region:?} comes after {last:?}");
        ensure!(region.page_count > 0, "{region:?} is empty");
        let listed = self.by_guest.get(&region.gpa) == Some(&id);
        ensure!(listed, "{region:?} is not listed by its guest-physical address");
        *last = Some(region);
        let right = self.check_below(node.right, last)?;

        let height = 1 + left.height.max(right.height);
        ensure!(left.height.abs_diff(right.height) <= 1, "{region:?} is out of balance");
        ensure!(node.height == height, "{region:?} has height {height}, not {}", node.height);
        let max_end = Some(region.end()).max(left.max_end).max(right.max_end);
        ensure!(max_end == Some(node.max_end), "below {region:?} {max_end:?} is the highest end");
        Ok(Subtree { count: left.count + 1 + right.count, height, max_end })
    }
}
