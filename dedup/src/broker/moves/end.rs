//! The end of moves that cannot be completed: they are given up.
//!
//! The budget or the kernel may not allow a page to be mapped to another slot, pass after pass. A
//! move that lasted until then would keep a slot without sharers, and two nodes that no page may join. So it is given
//! up: a target without sharers is removed, and its slot freed; one that has some becomes a dup like any other; both
//! nodes take items again.
//!
//! An agent that was sent a target and has not answered may be about to map a page there, and a
//! slot that is freed must never be mapped. The broker records which directives have no outcome yet
//! (`Member::awaiting_ack`), and gives up no move before all have one. In one process there are none between two
//! steps, as an agent executes and reports in one call; this does not depend on it, so it holds for agents that
//! report late as well. A `Merged` with a target that was removed is refused: its page was not directed there, or has
//! answered that directive already.
//!
//! Whatever takes a page off the source's list answers its directive, too: `Broken`, `Left`, `Yielded` and an offer.
//! So `awaits_ack` need not look beyond the sharers. An agent that maps the page to the target all the same gets its
//! `Merged` refused, and undoes it (`Agent::report`); its own VM alone would see what a reused slot holds.

use crate::Slot;
use crate::broker::LocalBroker;
use crate::broker::ids::NodeId;
use crate::broker::life_cycle::Move;

impl LocalBroker {
    /// Gives up the move of a slot's sharers to another if none of them was moved; returns whether
    /// it did. O(sharers).
    pub fn give_up_move(&mut self, slot: Slot) -> bool {
        let Some(from) = self.store.slots.node(slot) else { return false };
        let Some(&Move { target, .. }) = self.moves.get(&from) else { return false };
        let is_vain = self.stable.node(target).load() == 0 && self.may_be_given_up(from);
        if is_vain {
            self.cancel_move(from);
            self.store.flush();
        }
        is_vain
    }

    /// Gives up what is left of all moves that have been [enqueued](Self::enqueue_moves), if all directives that were
    /// sent for them are answered; returns how many moves that were. O(sharers that are left).
    pub fn give_up_moves(&mut self) -> usize {
        let enqueued = self.moves.iter().filter(|(_, begun)| begun.was_enqueued);
        let vain: Vec<NodeId> =
            enqueued.map(|(&from, _)| from).filter(|&from| self.may_be_given_up(from)).collect();
        for &from in &vain {
            self.cancel_move(from);
        }
        self.store.flush();
        vain.len()
    }

    /// Whether no directive for the move from a node is open, and those of its sharers that were not moved can stay
    /// there.
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extents::Extent;
    use crate::protocol::{Broker, Decision, Directive, IdentityOffer, Offer, Outcome};
    use crate::{LinearIndex, PAGE_SIZE, VmId};

    const PAGE: [u8; PAGE_SIZE] = [1; PAGE_SIZE];
    const LINEAR: LinearIndex = LinearIndex(0);
    const VMS: [VmId; 3] = [VmId(0), VmId(1), VmId(2)];

    fn offer(broker: &LocalBroker) -> [Offer; 1] {
        [Offer { linear: LINEAR, fingerprint: broker.secret().fingerprint(&PAGE) }]
    }

    fn merged(slot: Slot) -> [Outcome; 1] {
        [Outcome::Merged(Extent { linear: LINEAR, slot, page_count: 1 })]
    }

    fn polled(broker: &mut LocalBroker, vm: VmId) -> Vec<Directive> {
        let mut directives = Vec::new();
        broker.directives(vm, 9, &mut directives).unwrap();
        directives
    }

    /// Three VMs of a page each, of which the first two share a slot that is being moved, and have been sent the
    /// directives to do it; the slot, and the one that it is moved to.
    fn moving() -> (LocalBroker, Slot, Slot) {
        let mut broker = LocalBroker::new(1 << 10, 256).unwrap();
        for vm in VMS {
            broker.register(vm, 1).unwrap();
        }
        let (offer, mut decisions) = (offer(&broker), Vec::new());
        broker.offer(VMS[0], &offer, &mut decisions).unwrap();
        broker.offer(VMS[1], &offer, &mut decisions).unwrap();
        let [Directive::Create { slot: from, .. }] = polled(&mut broker, VMS[0])[..] else {
            panic!()
        };
        broker.fill(VMS[0], from, &PAGE, &mut Vec::new()).unwrap();
        broker.report(VMS[0], &merged(from)).unwrap();
        assert_eq!(
            polled(&mut broker, VMS[1]),
            [Directive::Merge { linear: LINEAR, slot: from, awaited: true }]
        );
        broker.report(VMS[1], &merged(from)).unwrap();
        let to = broker.begin_move(from).unwrap();
        broker.enqueue_moves();
        for vm in [VMS[0], VMS[1]] {
            let directive = Directive::Merge { linear: LINEAR, slot: to, awaited: false };
            assert_eq!(polled(&mut broker, vm), [directive]);
        }
        (broker, from, to)
    }

    #[test]
    fn a_target_is_given_up_once_all_directives_are_answered_and_nobody_comes_there_later() {
        let (mut broker, from, to) = moving();
        let declined = [Outcome::Declined { linear: LINEAR, slot: to }];
        broker.report(VMS[1], &declined).unwrap();
        assert_eq!(broker.give_up_moves(), 0, "the first may be about to come");
        assert!(!broker.give_up_move(from));
        assert!(broker.identity(to).is_some());
        broker.report(VMS[0], &declined).unwrap();
        assert_eq!(broker.give_up_moves(), 1);
        assert_eq!((broker.move_count(), broker.identity(to)), (0, None));
        broker.check().unwrap();
        assert!(broker.report(VMS[0], &merged(to)).is_err(), "it has declined");
        broker.check().unwrap();
        let (offer, mut decisions) = (offer(&broker), Vec::new());
        broker.offer(VMS[2], &offer, &mut decisions).unwrap();
        assert_eq!(decisions, [Decision::Join(from)], "pages can join again");
    }

    #[test]
    fn a_page_that_is_offered_or_broken_before_its_move_is_answered_cannot_come_to_the_target() {
        let offered = |broker: &mut LocalBroker| {
            let offer = offer(broker);
            broker.offer(VMS[0], &offer, &mut Vec::new()).unwrap();
        };
        let identified = |broker: &mut LocalBroker| {
            let offer =
                [IdentityOffer { linear: LINEAR, identity: broker.secret().identity(&PAGE) }];
            broker.offer_by_identity(VMS[0], &offer, &mut Vec::new()).unwrap();
        };
        let written = |broker: &mut LocalBroker| {
            broker.report(VMS[0], &[Outcome::Broken { linear: LINEAR }]).unwrap();
        };
        for leave in [offered as fn(&mut LocalBroker), identified, written] {
            let (mut broker, _, to) = moving();
            leave(&mut broker);
            broker.check().unwrap();
            assert_eq!(broker.give_up_moves(), 0, "the second has not answered");
            let declined = [Outcome::Declined { linear: LINEAR, slot: to }];
            broker.report(VMS[1], &declined).unwrap();
            assert_eq!(broker.give_up_moves(), 1);
            assert!(broker.report(VMS[0], &merged(to)).is_err(), "its directive was answered");
            broker.check().unwrap();
        }
    }
}
