//! Moves that come to nothing, and are given up.
//!
//! The mapping budget or the kernel may refuse to map a page to another slot, pass after pass. A
//! move that waited for that for ever would keep a slot that nobody shares, and two nodes that no
//! page may join. So it is given up: a target that nobody has come to goes, and its slot with it;
//! a target that some have come to becomes a dup like any other; both nodes take items again.
//!
//! An agent that was sent a target and has not answered may be about to map a page there, and a
//! slot that is freed must never be mapped. The broker records which directives have no outcome yet
//! (`Member::awaiting_ack`), and gives up no move before all have one. In one process there are none between two
//! steps, as an agent executes and reports in one call; this does not depend on it, so it holds for agents that
//! report late as well. An outcome that names a target which is no more was not directed, or comes after one
//! that had declined: it is refused.

use super::Move;
use crate::Slot;
use crate::broker::LocalBroker;
use crate::broker::ids::NodeId;

impl LocalBroker {
    /// Gives up the move of a slot's sharers to another if none of them has come there; says whether
    /// it did. O(sharers).
    pub fn give_up_move(&mut self, slot: Slot) -> bool {
        let Some(from) = self.store.slots.node(slot) else { return false };
        let Some(&Move { target, .. }) = self.moves.get(&from) else { return false };
        let is_vain = self.stable.node(target).load() == 0 && self.may_be_given_up(from);
        if is_vain {
            self.cancel(from);
            self.store.flush();
        }
        is_vain
    }

    /// Gives up what is left of all moves that have been [resumed](Self::resume_moves), as all
    /// sharers have been asked since then; says how many moves that were. O(sharers that are left).
    pub fn give_up_moves(&mut self) -> usize {
        let resumed = self.moves.iter().filter(|(_, begun)| begun.resumed);
        let vain: Vec<NodeId> =
            resumed.map(|(&from, _)| from).filter(|&from| self.may_be_given_up(from)).collect();
        for &from in &vain {
            self.cancel(from);
        }
        self.store.flush();
        vain.len()
    }

    /// Whether nobody can come to the target of a node's move any more who was directed to, and whoever
    /// stays behind has bytes to share.
    fn may_be_given_up(&self, from: NodeId) -> bool {
        !self.stable.node(from).lost && !self.awaits_ack(from)
    }

    /// Whether an agent was directed to move a sharer of a node and has not reported its outcome.
    pub(in crate::broker) fn awaits_ack(&self, from: NodeId) -> bool {
        self.sharers(from).any(|item| {
            let (vm, linear) = self.rmap.page(item);
            self.members.get(&vm).is_some_and(|member| member.awaiting_ack.contains(&linear))
        })
    }

    /// Ends a move as it stands.
    pub(in crate::broker) fn cancel(&mut self, from: NodeId) {
        let Some(Move { target, .. }) = self.moves.remove(&from) else { return };
        self.stable.set_closed(from, self.stable.node(from).lost);
        self.stable.set_closed(target, false);
        let mut left = vec![from];
        if self.stable.node(target).load() == 0 {
            self.settle_node(target);
        } else {
            left.push(target);
        }
        for &id in &left {
            if self.stable.has_room(id) {
                self.propose_waiting(id);
            }
        }
        for id in left {
            self.settle_node(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extents::Extent;
    use crate::protocol::{Broker, Decision, Directive, Offer, Outcome};
    use crate::{LinearIndex, PAGE_SIZE, VmId};

    const PAGE: [u8; PAGE_SIZE] = [1; PAGE_SIZE];

    #[test]
    fn a_target_is_given_up_when_all_have_answered_who_were_told_and_nobody_comes_there_later() {
        let mut broker = LocalBroker::new(1 << 10, 256).unwrap();
        let vms = [VmId(0), VmId(1), VmId(2)];
        for vm in vms {
            broker.register(vm, 1).unwrap();
        }
        let linear = LinearIndex(0);
        let offer = [Offer { linear, fingerprint: broker.secret().fingerprint(&PAGE) }];
        let mut decisions = Vec::new();
        broker.offer(vms[0], &offer, &mut decisions).unwrap();
        broker.offer(vms[1], &offer, &mut decisions).unwrap();
        let polled = |broker: &mut LocalBroker, vm| {
            let mut directives = Vec::new();
            broker.directives(vm, 9, &mut directives).unwrap();
            directives
        };
        let [Directive::Create { slot: from, .. }] = polled(&mut broker, vms[0])[..] else {
            panic!()
        };
        broker.fill(vms[0], from, &PAGE, &mut Vec::new()).unwrap();
        let merged = |slot| [Outcome::Merged(Extent { linear, slot, page_count: 1 })];
        broker.report(vms[0], &merged(from)).unwrap();
        assert_eq!(
            polled(&mut broker, vms[1]),
            [Directive::Merge { linear, slot: from, awaited: true }]
        );
        broker.report(vms[1], &merged(from)).unwrap();

        let to = broker.begin_move(from).unwrap();
        broker.resume_moves();
        for vm in [vms[0], vms[1]] {
            assert_eq!(
                polled(&mut broker, vm),
                [Directive::Merge { linear, slot: to, awaited: false }]
            );
        }
        let declined = [Outcome::Declined { linear, slot: to }];
        broker.report(vms[1], &declined).unwrap();
        assert_eq!(broker.give_up_moves(), 0, "the first may be about to come");
        assert!(!broker.give_up_move(from));
        assert!(broker.identity(to).is_some());
        broker.report(vms[0], &declined).unwrap();
        assert_eq!(broker.give_up_moves(), 1);
        assert_eq!((broker.move_count(), broker.identity(to)), (0, None));
        broker.check().unwrap();
        assert!(broker.report(vms[0], &merged(to)).is_err(), "it has said that it would not come");
        broker.check().unwrap();
        decisions.clear();
        broker.offer(vms[2], &offer, &mut decisions).unwrap();
        assert_eq!(decisions, [Decision::Join(from)], "pages can join again");
    }
}
