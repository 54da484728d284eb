//! What agents say that is wrong or comes to nothing: the broker is as it was, or lets go of it all.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use pagefold_dedup::broker::LocalBroker;
use pagefold_dedup::extents::Extent;
use pagefold_dedup::protocol::{Broker, BrokerError, Directive, Offer, Outcome};
use pagefold_dedup::{LinearIndex, PAGE_SIZE, Slot, VmId};

const VM: VmId = VmId(0);
const PAGE: [u8; PAGE_SIZE] = [1; PAGE_SIZE];

/// A broker to which a VM has offered its first `count` pages, which are equal, and what it said.
fn offered(count: u32) -> (LocalBroker, Vec<Directive>) {
    let mut broker = LocalBroker::new(1 << 10, 256).unwrap();
    broker.register(VM, 8).unwrap();
    let directives = offer(&mut broker, VM, 0..count);
    (broker, directives)
}

fn offer(broker: &mut LocalBroker, vm: VmId, pages: std::ops::Range<u32>) -> Vec<Directive> {
    let fingerprint = broker.secret().fingerprint(&PAGE);
    let offers: Vec<Offer> =
        pages.map(|page| Offer { linear: LinearIndex(page), fingerprint }).collect();
    broker.offer(vm, &offers, &mut Vec::new()).unwrap();
    let mut directives = Vec::new();
    broker.directives(vm, 8, &mut directives).unwrap();
    directives
}

fn created(directives: &[Directive]) -> Slot {
    match directives[0] {
        Directive::Create { slot, .. } => slot,
        other => panic!("{other:?}"),
    }
}

fn merged(page: u32, slot: Slot) -> Outcome {
    Outcome::Merged(Extent { linear: LinearIndex(page), slot, count_pages: 1 })
}

#[test]
fn pages_that_were_to_join_a_slot_that_is_never_filled_are_let_go() {
    let (mut broker, directives) = offered(3);
    let slot = created(&directives);
    assert_eq!(directives.len(), 3, "one to create, two to join");
    let mut accepted = Vec::new();
    broker.fill(VM, slot, &[2; PAGE_SIZE], &mut accepted).unwrap();
    assert_eq!(accepted, [false], "other bytes than were offered");
    broker.check().unwrap();
    let declined = |page| Outcome::Declined { linear: LinearIndex(page), slot };
    broker.report(VM, &[declined(0), declined(1), declined(2)]).unwrap();
    broker.check().unwrap();
    assert_eq!(broker.count_nodes(), 0);

    let newcomer = VmId(1);
    broker.register(newcomer, 8).unwrap();
    assert_eq!(offer(&mut broker, newcomer, 5..6), [], "it is alone with its content");
    assert_eq!(broker.stats("test").pages_unshared, 1);
}

#[test]
fn room_that_such_pages_leave_goes_to_one_that_waits() {
    let mut broker = LocalBroker::new(1 << 10, 2).unwrap();
    broker.register(VM, 8).unwrap();
    let directives = offer(&mut broker, VM, 0..3);
    let slot = created(&directives);
    assert_eq!(directives.len(), 2, "the third page waits for room");
    let mut accepted = Vec::new();
    broker.fill(VM, slot, &[2; PAGE_SIZE], &mut accepted).unwrap();
    broker.check().unwrap();
    assert_eq!(broker.stats("test").pages_unshared, 1, "and waits for a twin now");
    assert_eq!(broker.count_nodes(), 0);
}

#[test]
fn pages_that_share_are_not_without_backing() {
    let (mut broker, directives) = offered(2);
    let slot = created(&directives);
    broker.fill(VM, slot, &PAGE, &mut Vec::new()).unwrap();
    broker.report(VM, &[merged(0, slot), merged(1, slot)]).unwrap();
    let unbacked = Outcome::Unbacked { linear: LinearIndex(0), count_pages: 8 };
    let refused = broker.report(VM, &[unbacked]).unwrap_err();
    assert_eq!(refused.done, 0);
    assert!(matches!(refused.source, BrokerError::StillShared { linear: LinearIndex(0), .. }));
    broker.check().unwrap();
    let left = |page| Outcome::Left { linear: LinearIndex(page) };
    broker.report(VM, &[left(0), left(1), unbacked]).unwrap();
    broker.check().unwrap();
    assert_eq!(broker.count_nodes(), 0);
}

#[test]
fn numbers_at_the_end_of_their_range_are_refused() {
    let (mut broker, _) = offered(2);
    let last = Slot(u32::MAX);
    let mut accepted = Vec::new();
    assert!(broker.fill(VM, last, &PAGE, &mut accepted).is_err());
    assert!(broker.fill(VM, last, &[PAGE, PAGE].concat(), &mut accepted).is_err());
    let end = LinearIndex(u32::MAX);
    for count_pages in [0, 1, 2, u32::MAX] {
        for linear in [LinearIndex(7), end] {
            let run = Extent { linear, slot: last, count_pages };
            let nothing = count_pages == 0;
            assert!(nothing || broker.report(VM, &[Outcome::Merged(run)]).is_err());
        }
        let unbacked = Outcome::Unbacked { linear: end, count_pages };
        assert!(broker.report(VM, &[unbacked]).is_err());
    }
    let declined = Outcome::Declined { linear: LinearIndex(0), slot: last };
    broker.report(VM, &[declined]).unwrap();
    broker.check().unwrap();
}
