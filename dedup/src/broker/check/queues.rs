//! The poll queues: each undirected page is on its VM's queue, and no page is for which no directive can be due.

use super::{IndexError, ensure};
use crate::broker::LocalBroker;
use crate::broker::rmap::{RmapItem, Role};
use crate::{LinearIndex, VmId};

impl LocalBroker {
    /// Verifies the queue of a VM, and what its agent was directed to move, against its items. O(items).
    pub(super) fn check_queue(&self, vm: VmId) -> Result<(), IndexError> {
        let member = &self.members[&vm];
        let state = |linear| member.items.item(linear).map(|id| self.rmap.item(id));
        for linear in (0..member.items.page_count()).map(LinearIndex) {
            let is_undirected = matches!(state(linear), Some(RmapItem::Proposed { role, .. }) if role.is_undirected());
            ensure!(
                !is_undirected || member.queue.contains(linear),
                "page {} of VM {vm} is undirected, and is on no queue",
                linear.0
            );
        }
        member.queue.check().map_err(|what| IndexError(format!("VM {vm}: {what}")))?;
        for linear in member.queue.due() {
            // A sharer is due that is alone, or is being moved, or was when it was enqueued.
            let has_answer = matches!(
                state(linear),
                Some(
                    RmapItem::Proposed { role: Role::Undirected | Role::UndirectedUnpledged, .. }
                        | RmapItem::Collided(..)
                        | RmapItem::Stable(_)
                )
            );
            ensure!(
                has_answer,
                "page {} of VM {vm} is on a queue, and is {:?}",
                linear.0,
                state(linear)
            );
        }
        for linear in member.queue.set_aside() {
            let is_undirected =
                matches!(state(linear), Some(RmapItem::Proposed { role: Role::Undirected, .. }));
            ensure!(
                is_undirected,
                "page {} of VM {vm} is set aside, and is {:?}",
                linear.0,
                state(linear)
            );
        }
        for linear in member.queue.pages_deferred() {
            let is_unmapped = matches!(
                state(linear),
                Some(
                    RmapItem::Proposed { role: Role::Undirected | Role::UndirectedUnpledged, .. }
                        | RmapItem::Waiting(..)
                )
            );
            ensure!(
                is_unmapped,
                "page {} of VM {vm} is deferred, and is {:?}",
                linear.0,
                state(linear)
            );
        }
        ensure!(
            self.lacking_vms.contains(&vm) || !member.queue.has_lacking(),
            "pages of VM {vm} lack slots, and it counts as if none did"
        );
        ensure!(
            self.retries.vms.contains(&vm) || !member.queue.has_awaiting_retry(),
            "pages of VM {vm} await a retry, and it counts as if none did"
        );
        ensure!(
            self.retries.retrying_vms.contains(&vm) || !member.queue.has_retried(),
            "pages of VM {vm} are about to be offered again, and it counts as if none were"
        );
        for &linear in &member.awaiting_ack {
            let shares = matches!(state(linear), Some(RmapItem::Stable(_)));
            ensure!(
                shares,
                "page {} of VM {vm} is directed to move, and is {:?}",
                linear.0,
                state(linear)
            );
        }
        Ok(())
    }
}
