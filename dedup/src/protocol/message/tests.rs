//! Whether every message survives being sent, and what is none is refused.

use std::fmt::Debug;

use proptest::collection::{btree_set, hash_map, hash_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::{Union, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::bytes::{Bytes, Page};
use crate::extents::Extent;
use crate::fingerprint::{Fingerprint, Identity, Secret};
use crate::protocol::{
    Batch, BrokerError, BrokerStats, BusyError, Candidate, CompactCursor, CompactScope, Copies,
    Decision, Directive, IdentityOffer, IndexError, ItemState, MaxPageSharingError, MoveError,
    Offer, Outcome, ReportError, SystemError, UnsharedReason, VmItems,
};
use crate::stats::DomainStats;
use crate::{LinearIndex, PAGE_SIZE, Slot, VmId};

/// A strategy for each variant, in their order.
type Variants<T> = Vec<BoxedStrategy<T>>;

fn vm() -> impl Strategy<Value = VmId> {
    any::<u32>().prop_map(VmId)
}

fn linear() -> impl Strategy<Value = LinearIndex> {
    any::<u32>().prop_map(LinearIndex)
}

fn slot() -> impl Strategy<Value = Slot> {
    any::<u32>().prop_map(Slot)
}

fn slots() -> impl Strategy<Value = Vec<Slot>> {
    vec(slot(), 0..5)
}

fn linears() -> impl Strategy<Value = Vec<LinearIndex>> {
    vec(linear(), 0..5)
}

fn place() -> impl Strategy<Value = (VmId, LinearIndex)> {
    (vm(), linear())
}

fn moved() -> impl Strategy<Value = Vec<(Slot, Slot)>> {
    vec((slot(), slot()), 0..5)
}

fn identity() -> impl Strategy<Value = Identity> {
    any::<[u8; 16]>().prop_map(Identity)
}

fn page() -> impl Strategy<Value = Page> {
    any::<[u8; 32]>().prop_map(|block| {
        let mut page = Box::new([0; PAGE_SIZE]);
        page.chunks_mut(block.len()).for_each(|part| part.copy_from_slice(&block));
        Page(page)
    })
}

fn extent() -> impl Strategy<Value = Extent> {
    (linear(), slot(), any::<u32>()).prop_map(|(linear, slot, page_count)| Extent {
        linear,
        slot,
        page_count,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let at = || (linear(), slot());
    prop_oneof![
        extent().prop_map(Outcome::Merged),
        at().prop_map(|(linear, slot)| Outcome::Declined { linear, slot }),
        at().prop_map(|(linear, slot)| Outcome::Deferred { linear, slot }),
        at().prop_map(|(linear, slot)| Outcome::DeferredForRetry { linear, slot }),
        linear().prop_map(|linear| Outcome::Retried { linear }),
        at().prop_map(|(linear, slot)| Outcome::Differs { linear, slot }),
        linear().prop_map(|linear| Outcome::Broken { linear }),
        linear().prop_map(|linear| Outcome::Left { linear }),
        linear().prop_map(|linear| Outcome::Yielded { linear }),
        (linear(), any::<u32>())
            .prop_map(|(linear, page_count)| Outcome::Unbacked { linear, page_count }),
    ]
}

fn decision() -> impl Strategy<Value = Decision> {
    prop_oneof![
        Just(Decision::Wait),
        slot().prop_map(Decision::Join),
        Just(Decision::Identify),
        Just(Decision::Keep),
    ]
}

fn directive() -> impl Strategy<Value = Directive> {
    let at = || (linear(), slot(), any::<bool>());
    prop_oneof![
        (at(), any::<(u32, u32)>()).prop_map(|((linear, slot, _), (partners, apart))| {
            Directive::Create { linear, slot, partners, apart }
        }),
        at().prop_map(|(linear, slot, awaited)| Directive::Merge { linear, slot, awaited }),
        linear().prop_map(|linear| Directive::Offer { linear }),
        linear().prop_map(|linear| Directive::Unshare { linear }),
    ]
}

fn system_error() -> impl Strategy<Value = SystemError> {
    (any::<Option<i32>>(), any::<String>())
        .prop_map(|(os_code, text)| SystemError { os_code, text })
}

fn broker_error() -> impl Strategy<Value = BrokerError> {
    prop_oneof![
        vm().prop_map(BrokerError::UnknownVm),
        vm().prop_map(BrokerError::VmExists),
        any::<(u32, u64)>()
            .prop_map(|(page_count, limit)| BrokerError::NoItems { page_count, limit }),
        place().prop_map(|(vm, linear)| BrokerError::BadLinearIndex { vm, linear }),
        (vm(), slot()).prop_map(|(vm, slot)| BrokerError::BadSlot { vm, slot }),
        place().prop_map(|(vm, linear)| BrokerError::StillShared { vm, linear }),
        any::<usize>().prop_map(BrokerError::BadLength),
        system_error().prop_map(BrokerError::Store),
    ]
}

fn move_error() -> impl Strategy<Value = MoveError> {
    prop_oneof![
        slot().prop_map(MoveError::Empty),
        slot().prop_map(MoveError::Busy),
        Just(MoveError::Full),
        slot().prop_map(MoveError::Damaged),
        system_error().prop_map(MoveError::Store),
    ]
}

fn index_error() -> impl Strategy<Value = IndexError> {
    any::<String>().prop_map(IndexError)
}

/// Either a value or an error.
fn result<T: Debug, E: Debug>(
    value: impl Strategy<Value = T>,
    error: impl Strategy<Value = E>,
) -> impl Strategy<Value = Result<T, E>> {
    proptest::result::maybe_err(value, error)
}

fn cursor() -> impl Strategy<Value = Box<CompactCursor>> {
    let candidate = (slots(), hash_map(slot(), any::<usize>(), 0..5), any::<usize>(), any::<i64>())
        .prop_map(|(group, order, counted, gain)| Candidate { group, order, counted, gain });
    (linear(), hash_set(slot(), 0..5), option::of(candidate), any::<u32>()).prop_map(
        |(next, taken, candidate, work)| {
            let taken = taken.into_iter().collect();
            Box::new(CompactCursor { next, taken, candidate, work })
        },
    )
}

fn scope() -> impl Strategy<Value = CompactScope> {
    prop_oneof![Just(CompactScope::Gainful), Just(CompactScope::All)]
}

fn batch() -> impl Strategy<Value = Batch> {
    prop_oneof![Just(Batch::More), Just(Batch::Last)]
}

fn unshared_reason() -> impl Strategy<Value = UnsharedReason> {
    prop_oneof![
        Just(UnsharedReason::Alone),
        vec(any::<u32>(), 0..5).prop_map(UnsharedReason::OtherNumaNodes),
        slots().prop_map(UnsharedReason::Full),
        Just(UnsharedReason::Matched),
        Just(UnsharedReason::NoSlot),
    ]
}

fn item_state() -> impl Strategy<Value = ItemState> {
    prop_oneof![
        Just(ItemState::Loose),
        Just(ItemState::Collided),
        Just(ItemState::Waiting),
        Just(ItemState::Deferred),
        Just(ItemState::Retried),
        Just(ItemState::Proposed),
        option::of(slot()).prop_map(ItemState::Shared),
    ]
}

fn broker_stats() -> impl Strategy<Value = Box<BrokerStats>> {
    let domain = (any::<String>(), any::<[u64; 6]>(), any::<Option<u64>>()).prop_map(
        |(name, counts, store_bytes)| {
            let [shared, sharing, unshared, chains, dups, metadata_bytes] = counts;
            DomainStats {
                name,
                pages_shared: shared,
                pages_sharing: sharing,
                pages_unshared: unshared,
                stable_node_chains: chains,
                stable_node_dups: dups,
                store_bytes,
                metadata_bytes,
            }
        },
    );
    (domain, any::<u32>(), any::<u64>()).prop_map(|(domain, live_slots, slots_high_water)| {
        Box::new(BrokerStats { domain, live_slots, slots_high_water })
    })
}

fn copies() -> impl Strategy<Value = Copies> {
    (identity(), slots(), vec(place(), 0..5)).prop_map(|(identity, dups, private)| Copies {
        identity,
        dups,
        private,
    })
}

fn agent_requests() -> Variants<AgentRequest> {
    use AgentRequest as R;
    let offers = vec((linear(), any::<u64>()), 0..5).prop_map(|offers| {
        let offer = |(linear, key)| Offer { linear, fingerprint: Fingerprint(key) };
        offers.into_iter().map(offer).collect()
    });
    let named = vec((linear(), identity()), 0..5).prop_map(|offers| {
        let offer = |(linear, identity)| IdentityOffer { linear, identity };
        offers.into_iter().map(offer).collect()
    });
    let bytes = vec(page(), 0..3)
        .prop_map(|pages| Bytes(pages.iter().flat_map(|page| page.0.to_vec()).collect()));
    vec![
        (vm(), offers).prop_map(|(vm, offers)| R::Offer(vm, offers)).boxed(),
        (vm(), named).prop_map(|(vm, offers)| R::OfferByIdentity(vm, offers)).boxed(),
        (vm(), linears()).prop_map(|(vm, pages)| R::Age(vm, pages)).boxed(),
        (vm(), slot(), bytes).prop_map(|(vm, slot, bytes)| R::Fill(vm, slot, bytes)).boxed(),
        (vm(), vec(outcome(), 0..9)).prop_map(|(vm, all)| R::Report(vm, all)).boxed(),
        (vm(), any::<usize>()).prop_map(|(vm, limit)| R::Directives(vm, limit)).boxed(),
        (vm(), linears()).prop_map(|(vm, pages)| R::Partners(vm, pages)).boxed(),
        vm().prop_map(R::Unregister).boxed(),
    ]
}

fn agent_replies() -> Variants<AgentReply> {
    use AgentReply as R;
    let decisions = || result(vec(decision(), 0..5), broker_error());
    let flags = || vec(any::<bool>(), 0..9);
    let partners = vec(option::of(vm()), 0..5);
    let refused =
        (any::<usize>(), broker_error()).prop_map(|(done, source)| ReportError { done, source });
    vec![
        decisions().prop_map(R::Offer).boxed(),
        decisions().prop_map(R::OfferByIdentity).boxed(),
        result(flags(), broker_error()).prop_map(R::Age).boxed(),
        (flags(), result(Just(()), broker_error())).prop_map(R::Fill).boxed(),
        result(Just(()), refused).prop_map(R::Report).boxed(),
        result(vec(directive(), 0..5), broker_error()).prop_map(R::Directives).boxed(),
        result(partners, broker_error()).prop_map(R::Partners).boxed(),
        result(Just(()), broker_error()).prop_map(R::Unregister).boxed(),
    ]
}

fn admin_requests() -> Variants<AdminRequest> {
    use AdminRequest as R;
    let compact = (vm(), cursor(), scope(), vec(place(), 0..5));
    let name = any::<String>;
    vec![
        (vm(), any::<u32>()).prop_map(|(vm, pages)| R::Register(vm, pages)).boxed(),
        (vm(), vm()).prop_map(|(vm, to)| R::Rename(vm, to)).boxed(),
        Just(R::VmCount).boxed(),
        Just(R::Secret).boxed(),
        (vm(), any::<u32>()).prop_map(|(vm, numa_node)| R::SetNumaNode(vm, numa_node)).boxed(),
        vm().prop_map(R::NumaNode).boxed(),
        (vm(), any::<u32>(), any::<u32>())
            .prop_map(|(vm, start, end)| R::Trim(vm, start..end))
            .boxed(),
        name().prop_map(R::Stats).boxed(),
        vm().prop_map(R::VmItems).boxed(),
        Just(R::StoreBytes).boxed(),
        Just(R::NodeCount).boxed(),
        Just(R::IsEmpty).boxed(),
        any::<u32>().prop_map(R::SetMaxPageSharing).boxed(),
        any::<bool>().prop_map(R::SetMergeAcrossNodes).boxed(),
        (slot(), option::of(place()), any::<usize>())
            .prop_map(|(slot, after, room)| R::SlotSharers(slot, after, room))
            .boxed(),
        slot().prop_map(R::SharerCount).boxed(),
        place().prop_map(|(vm, linear)| R::UnsharedReason(vm, linear)).boxed(),
        place().prop_map(|(vm, linear)| R::Skipped(vm, linear)).boxed(),
        page().prop_map(R::HasEqual).boxed(),
        slot().prop_map(R::BeginMove).boxed(),
        (vm(), linears()).prop_map(|(vm, pages)| R::MoveDirectives(vm, pages)).boxed(),
        Just(R::EndVisits).boxed(),
        Just(R::AwaitsRetries).boxed(),
        Just(R::EnqueueMoves).boxed(),
        slot().prop_map(R::GiveUpMove).boxed(),
        Just(R::GiveUpMoves).boxed(),
        compact.prop_map(|(vm, cursor, scope, at)| R::Compact(vm, cursor, scope, at)).boxed(),
        Just(R::JoinDups).boxed(),
        Just(R::UnshareLeftAlone).boxed(),
        slot().prop_map(R::Copies).boxed(),
        slot().prop_map(R::MarkLost).boxed(),
        Just(R::LostSlots).boxed(),
        (slot(), page()).prop_map(|(slot, page)| R::BeginRecovery(slot, page)).boxed(),
        Just(R::Recoveries).boxed(),
        (slot(), identity()).prop_map(|(slot, identity)| R::Read(slot, identity)).boxed(),
        (page(), identity()).prop_map(|(page, identity)| R::HasIdentity(page, identity)).boxed(),
        Just(R::PunchEmptySlots).boxed(),
        Just(R::ClearContested).boxed(),
        Just(R::DecayBreaks).boxed(),
        Just(R::Check).boxed(),
        btree_set(vm(), 0..5).prop_map(R::CheckVms).boxed(),
        place().prop_map(|(vm, linear)| R::Extents(vm, linear)).boxed(),
        place().prop_map(|(vm, linear)| R::ItemStates(vm, linear)).boxed(),
    ]
}

fn admin_replies() -> Variants<AdminReply> {
    use AdminReply as R;
    let done = || result(Just(()), broker_error());
    let is_intact = || result(Just(()), index_error());
    let slot_or_error = || result(slot(), move_error());
    let items =
        any::<[u64; 3]>().prop_map(|[waiting, count, bytes]| VmItems { waiting, count, bytes });
    let limit = prop_oneof![
        any::<u32>().prop_map(MaxPageSharingError::TooSmall),
        any::<usize>().prop_map(|slots| MaxPageSharingError::Busy { slots }),
    ];
    let busy = any::<u64>().prop_map(|slots| BusyError { slots });
    let secret = Just(()).prop_perturb(|(), _| Box::new(Secret::random().unwrap()));
    let group = result(option::of(moved()), broker_error());
    vec![
        done().prop_map(R::Register).boxed(),
        done().prop_map(R::Rename).boxed(),
        any::<u64>().prop_map(R::VmCount).boxed(),
        secret.prop_map(R::Secret).boxed(),
        done().prop_map(R::SetNumaNode).boxed(),
        any::<u32>().prop_map(R::NumaNode).boxed(),
        any::<u64>().prop_map(R::Trim).boxed(),
        broker_stats().prop_map(R::Stats).boxed(),
        option::of(items).prop_map(R::VmItems).boxed(),
        any::<Option<u64>>().prop_map(R::StoreBytes).boxed(),
        any::<u64>().prop_map(R::NodeCount).boxed(),
        any::<bool>().prop_map(R::IsEmpty).boxed(),
        result(Just(()), limit).prop_map(R::SetMaxPageSharing).boxed(),
        result(Just(()), busy).prop_map(R::SetMergeAcrossNodes).boxed(),
        option::of(vec(place(), 0..5)).prop_map(R::SlotSharers).boxed(),
        any::<u64>().prop_map(R::SharerCount).boxed(),
        option::of(unshared_reason()).prop_map(R::UnsharedReason).boxed(),
        any::<Option<(u8, u8)>>().prop_map(R::Skipped).boxed(),
        any::<bool>().prop_map(R::HasEqual).boxed(),
        slot_or_error().prop_map(R::BeginMove).boxed(),
        result(vec(directive(), 0..5), broker_error()).prop_map(R::MoveDirectives).boxed(),
        any::<u64>().prop_map(R::EndVisits).boxed(),
        any::<bool>().prop_map(R::AwaitsRetries).boxed(),
        Just(R::EnqueueMoves(())).boxed(),
        any::<bool>().prop_map(R::GiveUpMove).boxed(),
        any::<u64>().prop_map(R::GiveUpMoves).boxed(),
        (cursor(), group).prop_map(R::Compact).boxed(),
        any::<u64>().prop_map(R::JoinDups).boxed(),
        batch().prop_map(R::UnshareLeftAlone).boxed(),
        option::of(copies()).prop_map(R::Copies).boxed(),
        result(Just(()), move_error()).prop_map(R::MarkLost).boxed(),
        slots().prop_map(R::LostSlots).boxed(),
        slot_or_error().prop_map(R::BeginRecovery).boxed(),
        moved().prop_map(R::Recoveries).boxed(),
        option::of(page()).prop_map(R::Read).boxed(),
        any::<bool>().prop_map(R::HasIdentity).boxed(),
        Just(R::PunchEmptySlots(())).boxed(),
        Just(R::ClearContested(())).boxed(),
        Just(R::DecayBreaks(())).boxed(),
        is_intact().prop_map(R::Check).boxed(),
        is_intact().prop_map(R::CheckVms).boxed(),
        (vec(extent(), 0..5), batch()).prop_map(R::Extents).boxed(),
        (vec(item_state(), 0..9), batch()).prop_map(R::ItemStates).boxed(),
    ]
}

/// That a message is the same at the other end, and neither a part of it nor more than it is a message.
fn assert_survives<T>(message: &T, cut: prop::sample::Index, flipped: u8)
where
    T: Debug + PartialEq + Serialize + DeserializeOwned,
{
    let mut bytes = encode(message).unwrap();
    assert_eq!(&decode::<T>(&bytes).unwrap(), message);
    let at = cut.index(bytes.len());
    assert!(matches!(decode::<T>(&bytes[..at]), Err(MessageError::Decode(_))), "{message:?}");
    bytes.push(0);
    assert_eq!(decode::<T>(&bytes), Err(MessageError::Trailing(1)));
    bytes.pop();
    // Whatever that is, it is something or refused.
    bytes[at] ^= flipped;
    drop(decode::<T>(&bytes));
}

/// That there is a strategy for each variant.
fn assert_complete<T: Debug + Serialize + DeserializeOwned>(variants: &Variants<T>) {
    let mut runner = TestRunner::deterministic();
    for (number, variant) in variants.iter().enumerate() {
        let message = variant.new_tree(&mut runner).unwrap().current();
        let bytes = encode(&message).unwrap();
        assert_eq!(usize::from(bytes[0]), number, "{message:?} stands where another should");
    }
    let next = [u8::try_from(variants.len()).unwrap()];
    let is_none =
        |error: &MessageError| *error == MessageError::Decode(postcard::Error::SerdeDeCustom);
    let decoded = decode::<T>(&next);
    assert!(decoded.as_ref().is_err_and(is_none), "a variant without a strategy: {decoded:?}");
}

#[test]
fn every_message_is_sent_by_a_test() {
    assert_complete(&agent_requests());
    assert_complete(&agent_replies());
    assert_complete(&admin_requests());
    assert_complete(&admin_replies());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn every_message_survives_being_sent(
        agent_request in Union::new(agent_requests()),
        agent_reply in Union::new(agent_replies()),
        admin_request in Union::new(admin_requests()),
        admin_reply in Union::new(admin_replies()),
        cut in any::<prop::sample::Index>(),
        flipped in 1_u8..,
    ) {
        assert_survives(&agent_request, cut, flipped);
        assert_survives(&agent_reply, cut, flipped);
        assert_survives(&admin_request, cut, flipped);
        assert_survives(&admin_reply, cut, flipped);
    }
}
