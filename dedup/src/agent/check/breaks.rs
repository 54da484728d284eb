//! Checks of pages that count as folded against what the kernel keeps for each of them alone.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::LinearIndex;
use crate::agent::{Agent, MappingError};
use crate::fingerprint::is_zero;
use crate::sys::PageKind;

/// Ends of the sweep between which it has looked at every page.
const ROUNDS: u32 = 2;

/// Pages that count as folded, have the bytes that they should, and memory of their own all the same, as checks
/// have found them.
#[derive(Debug, Default)]
pub(in crate::agent) struct OwnCopies {
    /// How often the sweep had come to the end of the VM when a page was found, which has counted as folded ever
    /// since.
    since: BTreeMap<LinearIndex, u32>,
}

impl OwnCopies {
    /// Notes that pages do not count as folded any more, or as others than before. O(log pages + those of them
    /// that a check has found).
    pub(in crate::agent) fn forget(&mut self, pages: Range<LinearIndex>) {
        let found: Vec<LinearIndex> = self.since.range(pages).map(|(&page, _)| page).collect();
        for page in found {
            self.since.remove(&page);
        }
    }
}

impl Agent {
    /// Verifies that the pages that count as shared, or as zero, hold what their slots do, or nothing but
    /// zeroes, except for those that have been [named](Self::collect) as written; and that none of them has memory
    /// of its own that a check found before the sweep last looked at all. Exact only while nothing
    /// writes the VM's memory. O(pages).
    ///
    /// Such a page may have memory of its own for as long as the write for which the kernel
    /// has copied it is still to come: KVM copies it first, and logs the write when it lets the guest
    /// make it. So it may if somebody has populated it, until the sweep finds it.
    ///
    /// # Errors
    ///
    /// The first page of which that is not so.
    pub(crate) fn check_breaks(&mut self) -> Result<(), MappingError> {
        let (mut own, mut found) = (BTreeMap::new(), None);
        let is_wrong = |page, kind| {
            let is_own = matches!(kind, PageKind::Private | PageKind::Swapped);
            let is_folded = self.shared.contains(page) || self.zero.contains(page);
            if !is_own || !is_folded || self.undrained_dirty.contains(page) {
                return false;
            }
            let since = self.own_copies.since.get(&page).copied().unwrap_or(self.sweeps);
            own.insert(page, since);
            if self.is_unlike_folded(page) {
                found = Some(format!("page {page} holds other bytes and counts as folded"));
            } else if self.sweeps.wrapping_sub(since) >= ROUNDS {
                found = Some(format!(
                    "page {page} has memory of its own, counts as folded, and was passed over by the sweep"
                ));
            }
            found.is_some()
        };
        self.find_page(is_wrong)?;
        self.own_copies = OwnCopies { since: own };
        found.map_or(Ok(()), |what| Err(MappingError::Differs { vm: self.vm, what }))
    }

    /// Whether a page that counts as shared, or as zero, holds something else.
    fn is_unlike_folded(&self, page: LinearIndex) -> bool {
        let bytes = self.copy(page);
        if self.zero.contains(page) {
            return !is_zero(&bytes);
        }
        self.extents.slot(page).is_none_or(|slot| !self.store.view.equals(slot, &bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::ROUNDS;
    use crate::VmId;
    use crate::agent::ProcessMemory;
    use crate::agent::tests::World;

    #[test]
    fn a_shared_page_with_memory_of_its_own_that_no_sweep_finds_is_found() {
        let process = Arc::new(ProcessMemory::open(true).unwrap());
        let mut world = World::new(&process, 256, 0..0);
        world.live();
        world.settle();
        let agent = &mut world.vms.get_mut(&VmId(0)).unwrap().agent;
        let page = agent.shared.iter().next().unwrap();
        let populate = |agent: &super::Agent| {
            agent.space.span(page, 1).populate_write().unwrap();
        };
        populate(agent);
        agent.check_breaks().unwrap();
        // What the sweep counts up when it has looked at all.
        agent.sweeps += ROUNDS - 1;
        agent.check_breaks().unwrap();
        agent.sweeps += 1;
        let found = agent.check_breaks().unwrap_err().to_string();
        assert!(found.contains(&format!("page {page} has memory of its own")), "{found}");

        for _ in 0..ROUNDS {
            world.settle();
        }
        let agent = &mut world.vms.get_mut(&VmId(0)).unwrap().agent;
        agent.check_breaks().unwrap();
        assert!(agent.shared.contains(page), "it was taken back, and is merged again");
        populate(agent);
        agent.check_breaks().unwrap();
    }
}
