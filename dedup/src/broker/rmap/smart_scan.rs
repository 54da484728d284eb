//! The smart scan: pages that keep changing are looked at less and less often, and so are pages that are
//! merged and broken again and again.
//!
//! A page is looked at when it was written and has then been unchanged for a pass. Each time it grows older. On the
//! unstable tree it does not, as a page that waits there is not looked at again before it is written; then it has the
//! age that it had. So an old page is one that was unchanged for a pass, and written again, many times.
//!
//! A page that shares a slot has no age. One that is broken gets one by how often that has happened to it
//! [lately](super::breaks): none for its first breaks, and then one that has it be passed over more and more
//! often before it can be merged once more.
//!
//! Source: the kernel's `Documentation/admin-guide/mm/ksm.rst`, `smart_scan`.

use super::RmapItem;
use crate::broker::LocalBroker;
use crate::protocol::BrokerError;
use crate::{LinearIndex, VmId};

impl LocalBroker {
    /// Ages pages that are unchanged since the last pass, and appends to `skip` whether to pass over each. A page whose
    /// item is stable has no age, even if it was written meanwhile, and is never passed over. O(1) a page.
    ///
    /// # Errors
    ///
    /// An unknown VM or page; nothing was done.
    pub(in crate::broker) fn age_pages(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        skip: &mut Vec<bool>,
    ) -> Result<(), BrokerError> {
        let items: Vec<_> =
            pages.iter().map(|&linear| self.item(vm, linear)).collect::<Result<_, _>>()?;
        for item in items {
            let state = self.rmap.item(item);
            let (RmapItem::Loose(age) | RmapItem::Collided(_, age)) = state else {
                skip.push(false);
                continue;
            };
            let (age, skipped) = age.next();
            self.rmap.set(
                item,
                match state {
                    RmapItem::Collided(key, _) => RmapItem::Collided(key, age),
                    _ => RmapItem::Loose(age),
                },
            );
            skip.push(skipped);
        }
        Ok(())
    }

    /// Ends a pass: the count of breaks of each page is decremented once in 64 passes.
    /// O(VMs + stretches of 4096 pages that have counts).
    pub(crate) fn decay_breaks(&mut self) {
        self.passes = self.passes.wrapping_add(1);
        for member in self.members.values_mut() {
            member.breaks.decay(self.passes);
        }
    }

    /// The age of a page that is to be passed over by the passes in which it has not changed, and by how many of
    /// them; `None` for any other. O(1).
    pub(crate) fn skipped(&self, vm: VmId, linear: LinearIndex) -> Option<(u8, u8)> {
        match self.rmap.item(self.item(vm, linear).ok()?) {
            RmapItem::Loose(age) | RmapItem::Collided(_, age) => age.skipped(),
            _ => None,
        }
    }
}
