//! What agents report that is wrong or comes to nothing: the broker is as it was, or drops all of it.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use pagefold_dedup::errors::BrokerError;
use pagefold_dedup::internals::{
    Broker, Directive, Extent, IdentityOffer, LocalBroker, Offer, Outcome,
};
use pagefold_dedup::{LinearIndex, PAGE_SIZE, Slot, VmId};
use proptest::prelude::*;

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
    Outcome::Merged(Extent { linear: LinearIndex(page), slot, page_count: 1 })
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
    assert_eq!(broker.node_count(), 0);

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
    assert_eq!(broker.node_count(), 0);
}

#[test]
fn pages_that_share_are_not_without_backing() {
    let (mut broker, directives) = offered(2);
    let slot = created(&directives);
    broker.fill(VM, slot, &PAGE, &mut Vec::new()).unwrap();
    broker.report(VM, &[merged(0, slot), merged(1, slot)]).unwrap();
    let unbacked = Outcome::Unbacked { linear: LinearIndex(0), page_count: 8 };
    let refused = broker.report(VM, &[unbacked]).unwrap_err();
    assert_eq!(refused.done, 0);
    assert!(matches!(refused.source, BrokerError::StillShared { linear: LinearIndex(0), .. }));
    broker.check().unwrap();
    let left = |page| Outcome::Left { linear: LinearIndex(page) };
    broker.report(VM, &[left(0), left(1), unbacked]).unwrap();
    broker.check().unwrap();
    assert_eq!(broker.node_count(), 0);
}

#[test]
fn numbers_at_the_end_of_their_range_are_refused() {
    let (mut broker, _) = offered(2);
    let last = Slot(u32::MAX);
    let mut accepted = Vec::new();
    assert!(broker.fill(VM, last, &PAGE, &mut accepted).is_err());
    assert!(broker.fill(VM, last, &[PAGE, PAGE].concat(), &mut accepted).is_err());
    let end = LinearIndex(u32::MAX);
    for page_count in [0, 1, 2, u32::MAX] {
        for linear in [LinearIndex(7), end] {
            let run = Extent { linear, slot: last, page_count };
            let nothing = page_count == 0;
            assert!(nothing || broker.report(VM, &[Outcome::Merged(run)]).is_err());
        }
        let unbacked = Outcome::Unbacked { linear: end, page_count };
        assert!(broker.report(VM, &[unbacked]).is_err());
    }
    let declined = Outcome::Declined { linear: LinearIndex(0), slot: last };
    broker.report(VM, &[declined]).unwrap();
    broker.check().unwrap();
}

/// What a broker holds, word for word.
fn state(broker: &LocalBroker) -> String {
    broker.check().unwrap();
    format!("{broker:?}")
}

/// A broker with two VMs: pages 0 and 1 of the first share a slot, page 2 is to fill another and page 3
/// to join it, page 4 waits; returns both slots.
fn peopled() -> (LocalBroker, [Slot; 2]) {
    let (mut broker, directives) = offered(2);
    let shared = created(&directives);
    broker.fill(VM, shared, &PAGE, &mut Vec::new()).unwrap();
    broker.report(VM, &[merged(0, shared), merged(1, shared)]).unwrap();
    let other = |broker: &LocalBroker, byte| broker.secret().fingerprint(&[byte; PAGE_SIZE]);
    let of = |linear, fingerprint| Offer { linear: LinearIndex(linear), fingerprint };
    let (twin, alone) = (other(&broker, 2), other(&broker, 3));
    broker.offer(VM, &[of(2, twin), of(3, twin), of(4, alone)], &mut Vec::new()).unwrap();
    let mut directives = Vec::new();
    broker.directives(VM, 8, &mut directives).unwrap();
    broker.register(VmId(1), 8).unwrap();
    (broker, [shared, created(&directives)])
}

#[test]
fn a_message_with_one_bad_page_changes_nothing_and_is_refused_by_name() {
    let (mut broker, _) = peopled();
    let before = state(&broker);
    let good = LinearIndex(5);
    for bad in [LinearIndex(8), LinearIndex(u32::MAX)] {
        let fingerprint = broker.secret().fingerprint(&PAGE);
        let identity = broker.secret().identity(&PAGE);
        let pages = [good, bad];
        let offers = pages.map(|linear| Offer { linear, fingerprint });
        let named = pages.map(|linear| IdentityOffer { linear, identity });
        let (mut decisions, mut skip) = (Vec::new(), Vec::new());
        let refusals = [
            broker.offer(VM, &offers, &mut decisions).unwrap_err(),
            broker.offer_by_identity(VM, &named, &mut decisions).unwrap_err(),
            broker.age(VM, &pages, &mut skip).unwrap_err(),
            broker.move_directives(VM, &pages, &mut Vec::new()).unwrap_err(),
            broker.report(VM, &[Outcome::Left { linear: bad }]).unwrap_err().source,
        ];
        for refusal in refusals {
            let BrokerError::BadLinearIndex { vm: VM, linear } = refusal else {
                panic!("{refusal:?}")
            };
            assert_eq!(linear, bad);
        }
        assert!(decisions.is_empty() && skip.is_empty());
        assert_eq!(state(&broker), before);
    }
}

#[test]
fn bytes_that_nobody_asked_for_change_nothing() {
    let (mut broker, [shared, reserved]) = peopled();
    let before = state(&broker);
    let mut accepted = Vec::new();
    let stranger = broker.fill(VmId(9), reserved, &PAGE, &mut accepted);
    assert!(matches!(stranger, Err(BrokerError::UnknownVm(VmId(9)))));
    let other = broker.fill(VmId(1), reserved, &PAGE, &mut accepted);
    assert!(matches!(other, Err(BrokerError::BadSlot { vm: VmId(1), slot }) if slot == reserved));
    let again = broker.fill(VM, shared, &PAGE, &mut accepted);
    assert!(matches!(again, Err(BrokerError::BadSlot { .. })), "it is filled");
    let beyond = broker.fill(VM, reserved, &[PAGE; 2].concat(), &mut accepted);
    assert!(matches!(beyond, Err(BrokerError::BadSlot { .. })), "one slot was given out");
    for byte_count in [1, PAGE_SIZE - 1, PAGE_SIZE + 1] {
        let cut = broker.fill(VM, reserved, &vec![2; byte_count], &mut accepted);
        assert!(matches!(cut, Err(BrokerError::BadLength(bytes)) if bytes == byte_count));
    }
    assert!(accepted.is_empty());
    assert_eq!(state(&broker), before);
}

#[test]
fn a_merge_that_was_not_proposed_or_is_reported_twice_changes_nothing() {
    let (mut broker, [shared, reserved]) = peopled();
    let before = state(&broker);
    let run = |linear, slot, page_count| {
        Outcome::Merged(Extent { linear: LinearIndex(linear), slot, page_count })
    };
    for outcome in [
        merged(0, shared),
        merged(2, reserved),
        merged(3, reserved),
        merged(4, shared),
        merged(5, shared),
        run(0, shared, 2),
        run(2, shared, u32::MAX),
    ] {
        let refused = broker.report(VM, &[outcome]).unwrap_err();
        assert!(matches!(refused.source, BrokerError::BadSlot { vm: VM, .. }), "{outcome:?}");
        assert_eq!(state(&broker), before, "{outcome:?}");
    }
    broker.fill(VM, reserved, &[2; PAGE_SIZE], &mut Vec::new()).unwrap();
    let twice = [merged(2, reserved), merged(2, reserved), merged(3, reserved)];
    assert_eq!(broker.report(VM, &twice).unwrap_err().done, 1);
    broker.check().unwrap();
    broker.report(VM, &[merged(3, reserved)]).unwrap();
    broker.check().unwrap();
}

#[test]
fn a_vm_that_has_left_is_refused_by_name_and_may_come_again() {
    let (mut broker, _) = peopled();
    assert!(matches!(broker.register(VM, 8), Err(BrokerError::VmExists(VM))));
    broker.unregister(VM).unwrap();
    assert_eq!((broker.node_count(), broker.stats("test").pages_unshared), (0, 0));
    let before = state(&broker);
    let left = Outcome::Left { linear: LinearIndex(0) };
    let refusals = [
        broker.unregister(VM).unwrap_err(),
        broker.report(VM, &[left]).unwrap_err().source,
        broker.age(VM, &[LinearIndex(0)], &mut Vec::new()).unwrap_err(),
        broker.directives(VM, 8, &mut Vec::new()).unwrap_err(),
        broker.register(VM, u32::MAX).map_or_else(|_| BrokerError::UnknownVm(VM), |()| panic!()),
    ];
    let is_unknown = |refusal: &BrokerError| matches!(refusal, BrokerError::UnknownVm(VM));
    assert!(refusals.iter().all(is_unknown), "{refusals:?}");
    assert_eq!(state(&broker), before);
    broker.register(VM, 0).unwrap();
    broker.directives(VM, 8, &mut Vec::new()).unwrap();
    assert!(broker.age(VM, &[LinearIndex(0)], &mut Vec::new()).is_err(), "it has no page");
    broker.check().unwrap();
}

#[derive(Debug, Clone)]
enum Message {
    Offer(Vec<(u32, u8)>),
    Named(Vec<(u32, u8)>),
    Age(Vec<u32>),
    Fill { slot: u32, bytes: Vec<u8>, excess: usize },
    Report(Vec<Outcome>),
    Directives(usize),
    Move(u32),
    Again,
}

/// Mostly pages and slots that there are.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![20 => 0..8u32, 1 => Just(8u32), 1 => Just(u32::MAX)]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let linear = || number().prop_map(LinearIndex);
    let slot = || number().prop_map(Slot);
    let count = || prop_oneof![9 => 1..4u32, 1 => Just(0u32), 1 => Just(u32::MAX)];
    prop_oneof![
        3 => (linear(), slot(), count()).prop_map(|(linear, slot, page_count)| {
            Outcome::Merged(Extent { linear, slot, page_count })
        }),
        1 => (linear(), slot()).prop_map(|(linear, slot)| Outcome::Declined { linear, slot }),
        1 => (linear(), slot()).prop_map(|(linear, slot)| Outcome::Deferred { linear, slot }),
        1 => (linear(), slot()).prop_map(|(linear, slot)| Outcome::Differs { linear, slot }),
        1 => linear().prop_map(|linear| Outcome::Left { linear }),
        1 => linear().prop_map(|linear| Outcome::Broken { linear }),
        1 => (linear(), count())
            .prop_map(|(linear, page_count)| Outcome::Unbacked { linear, page_count }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let pages = || prop::collection::vec((number(), 1..4u8), 0..9);
    prop_oneof![
        4 => pages().prop_map(Message::Offer),
        1 => pages().prop_map(Message::Named),
        1 => prop::collection::vec(number(), 0..9).prop_map(Message::Age),
        4 => (number(), prop::collection::vec(1..4u8, 0..3), 0..30usize)
            .prop_map(|(slot, bytes, excess)| Message::Fill { slot, bytes, excess }),
        6 => prop::collection::vec(outcome(), 0..5).prop_map(Message::Report),
        4 => prop_oneof![0..9usize, Just(usize::MAX)].prop_map(Message::Directives),
        1 => number().prop_map(Message::Move),
        1 => Just(Message::Again),
    ]
}

/// Sends a message as a VM; says whether it was refused as a whole.
fn send(broker: &mut LocalBroker, vm: VmId, message: &Message) -> bool {
    let bytes = |byte: u8| [byte; PAGE_SIZE];
    match message {
        Message::Offer(pages) => {
            let offer = |&(page, byte): &(u32, u8)| Offer {
                linear: LinearIndex(page),
                fingerprint: broker.secret().fingerprint(&bytes(byte)),
            };
            let offers: Vec<Offer> = pages.iter().map(offer).collect();
            broker.offer(vm, &offers, &mut Vec::new()).is_err()
        }
        Message::Named(pages) => {
            let offer = |&(page, byte): &(u32, u8)| IdentityOffer {
                linear: LinearIndex(page),
                identity: broker.secret().identity(&bytes(byte)),
            };
            let offers: Vec<IdentityOffer> = pages.iter().map(offer).collect();
            broker.offer_by_identity(vm, &offers, &mut Vec::new()).is_err()
        }
        Message::Age(pages) => {
            let pages: Vec<LinearIndex> = pages.iter().copied().map(LinearIndex).collect();
            broker.age(vm, &pages, &mut Vec::new()).is_err()
        }
        Message::Fill { slot, bytes: of, excess } => {
            let mut pages: Vec<u8> = of.iter().flat_map(|&byte| bytes(byte)).collect();
            // One message in thirty ends within a page.
            pages.extend(std::iter::repeat_n(1, usize::from(*excess == 0)));
            broker.fill(vm, Slot(*slot), &pages, &mut Vec::new()).is_err()
        }
        Message::Report(outcomes) => {
            broker.report(vm, outcomes).is_err_and(|refused| refused.done == 0)
        }
        Message::Directives(limit) => {
            broker.directives(vm, *limit, &mut Vec::new()).unwrap();
            false
        }
        Message::Move(slot) => {
            let moved = broker.begin_move(Slot(*slot));
            broker.enqueue_moves();
            moved.is_err() && broker.move_count() == 0
        }
        Message::Again => {
            broker.unregister(vm).unwrap();
            broker.register(vm, 8).unwrap();
            false
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_agents_send_the_index_holds_and_what_is_refused_changes_nothing(
        max_page_sharing in 2..4u32,
        messages in prop::collection::vec((0..2u32, message()), 1..60),
    ) {
        let mut broker = LocalBroker::new(6, max_page_sharing).unwrap();
        for vm in [VM, VmId(1)] {
            broker.register(vm, 8).unwrap();
        }
        let mut before = state(&broker);
        for (vm, message) in messages {
            let is_refused = send(&mut broker, VmId(vm), &message);
            let after = state(&broker);
            prop_assert!(!is_refused || before == after, "{message:?}: {before} became {after}");
            before = after;
        }
    }
}
