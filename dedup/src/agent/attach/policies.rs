//! NUMA policies that a VM's memory had when it was attached, and keeps.
//!
//! A mapping made by folding has the default policy, and the kernel would put what the guest writes
//! there on any node. The kernel goes by the policy of the *file* where a page over a slot is copied: so for
//! a slot whose sharers were attached with different policies, the one that was mapped last decides. Pages that
//! are made anonymous memory again are copied where their policy has them.

use std::io;
use std::ops::Range;

use crate::agent::Agent;
use crate::sys::{MemoryPolicy, Piece, Span};
use crate::types::count;
use crate::{LinearIndex, PAGE_SIZE};

/// Pages that are to have a policy other than the default; an agent has them in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) struct PolicyRun {
    pages: Range<LinearIndex>,
    policy: MemoryPolicy,
}

/// The policies of a piece of memory whose mappings have these addresses.
pub(super) fn policies_of(
    piece: &Piece,
    start: usize,
    mappings: &[Range<usize>],
) -> Vec<PolicyRun> {
    let page = |addr: usize| piece.linear.offset(count((addr - start) / PAGE_SIZE));
    let run = |mapping: &Range<usize>| {
        let policy = MemoryPolicy::at(mapping.start)?;
        Some(PolicyRun { pages: page(mapping.start)..page(mapping.end), policy })
    };
    mappings.iter().filter_map(run).collect()
}

impl Agent {
    /// Has what was mapped into the span that begins at page `linear` have the policies that its pages
    /// are to have, which may be the default: a slot keeps the policy of whoever was mapped there before.
    /// O(1) where no VM's memory has any.
    pub(in crate::agent) fn apply_policies(
        &self,
        linear: LinearIndex,
        span: Span<'_>,
    ) -> io::Result<()> {
        let part = |from: LinearIndex, to: LinearIndex| span.part(from.0 - linear.0, to.0 - from.0);
        let (mut next, end) = (linear, linear.offset(span.page_count()));
        for PolicyRun { pages, policy } in &self.policies {
            let (first, last) = (pages.start.max(linear), pages.end.min(end));
            if first < last {
                if next < first {
                    MemoryPolicy::reset(part(next, first))?;
                }
                policy.apply(part(first, last))?;
                next = last;
            }
        }
        if next < end { MemoryPolicy::reset(part(next, end)) } else { Ok(()) }
    }

    /// The pages from `first` to `last` at which policies change, so that the kernel keeps mappings apart.
    pub(in crate::agent) fn policy_edges(
        &self,
        first: LinearIndex,
        last: LinearIndex,
    ) -> Vec<LinearIndex> {
        let edges = self.policies.iter().flat_map(|run| [run.pages.start, run.pages.end]);
        edges.filter(|page| (first..=last).contains(page)).collect()
    }

    /// The first page after `linear` that may have another policy.
    pub(in crate::agent) fn policy_end(&self, linear: LinearIndex) -> LinearIndex {
        let edges = self.policies.iter().flat_map(|run| [run.pages.start, run.pages.end]);
        edges.filter(|&edge| edge > linear).min().unwrap_or(LinearIndex(u32::MAX))
    }

    /// The policy that a page is to have, if it is not the default.
    pub(in crate::agent) fn policy(&self, linear: LinearIndex) -> Option<&MemoryPolicy> {
        let run = self.policies.iter().find(|run| run.pages.contains(&linear))?;
        Some(&run.policy)
    }
}

#[cfg(test)]
mod tests;
