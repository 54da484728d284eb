//! An rmap item as it lies in memory: three words, whose meaning depends on the state.
//!
//! | state | word 0, above the tag | word 1 | word 2 |
//! |---|---|---|---|
//! | loose | age, remaining skips | | |
//! | collided, waiting | age, remaining skips | key, low half | high half |
//! | proposed, stable | stable node | next item of the node | the item before |
//!
//! So the age and the skips of the smart scan overlay the stable half. Only a loose, collided or waiting item has an
//! age; the tag keeps any other from being read as one. (KSM overlays the two as well, so `should_skip_rmap_item` has
//! to test `STABLE_FLAG` first: a page may have been broken by a write while its item is still on the stable tree. See
//! docs/decisions/0007-linear-index.md.)

use super::{Age, Link, RmapItem, Role};
use crate::broker::ids::{ItemId, NodeId};
use crate::fingerprint::Fingerprint;

/// Bits of word 0 that hold the state.
const TAG_BITS: u32 = NodeId::SPARE_BITS;
const TAG_MASK: u32 = (1 << TAG_BITS) - 1;

const LOOSE: u32 = 0;
const WAITING: u32 = 1;
const PROPOSED_UNDIRECTED: u32 = 2;
const PROPOSED_CREATING: u32 = 3;
const PROPOSED_JOINING: u32 = 4;
const STABLE: u32 = 5;
const COLLIDED: u32 = 6;
const PROPOSED_UNDIRECTED_UNPLEDGED: u32 = 7;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedItem([u32; 3]);

const _: () = assert!(size_of::<PackedItem>() <= 16);
const _: () = assert!(PROPOSED_UNDIRECTED_UNPLEDGED <= TAG_MASK);

impl PackedItem {
    /// A loose item that was never looked at.
    pub(super) const NEW: Self = Self([LOOSE, 0, 0]);

    pub(super) fn pack(item: RmapItem) -> Self {
        let linked = |tag: u32, link: Link| {
            let packed = |item: Option<ItemId>| item.map_or(0, ItemId::to_packed);
            Self([tag | link.node.to_packed() << TAG_BITS, packed(link.next), packed(link.prev)])
        };
        let keyed = |tag: u32, Fingerprint(key): Fingerprint, age: Age| {
            let [low, high] = halves(key);
            Self([tag | age.to_bits() << TAG_BITS, low, high])
        };
        match item {
            RmapItem::Loose(age) => Self([LOOSE | age.to_bits() << TAG_BITS, 0, 0]),
            RmapItem::Collided(key, age) => keyed(COLLIDED, key, age),
            RmapItem::Waiting(key, age) => keyed(WAITING, key, age),
            RmapItem::Proposed { link, role: Role::Undirected } => {
                linked(PROPOSED_UNDIRECTED, link)
            }
            RmapItem::Proposed { link, role: Role::UndirectedUnpledged } => {
                linked(PROPOSED_UNDIRECTED_UNPLEDGED, link)
            }
            RmapItem::Proposed { link, role: Role::Creating } => linked(PROPOSED_CREATING, link),
            RmapItem::Proposed { link, role: Role::Joining } => linked(PROPOSED_JOINING, link),
            RmapItem::Stable(link) => linked(STABLE, link),
        }
    }

    pub(super) fn unpack(self) -> RmapItem {
        let [first, second, third] = self.0;
        let (tag, rest) = (first & TAG_MASK, first >> TAG_BITS);
        let link = || match NodeId::from_packed(rest) {
            Some(node) => {
                Link { node, next: ItemId::from_packed(second), prev: ItemId::from_packed(third) }
            }
            None => unreachable!("an item on the list of no node"),
        };
        let proposed = |role| RmapItem::Proposed { link: link(), role };
        let key = || Fingerprint(u64::from(second) | u64::from(third) << u32::BITS);
        match tag {
            LOOSE => RmapItem::Loose(Age::from_bits(rest)),
            COLLIDED => RmapItem::Collided(key(), Age::from_bits(rest)),
            WAITING => RmapItem::Waiting(key(), Age::from_bits(rest)),
            PROPOSED_UNDIRECTED => proposed(Role::Undirected),
            PROPOSED_UNDIRECTED_UNPLEDGED => proposed(Role::UndirectedUnpledged),
            PROPOSED_CREATING => proposed(Role::Creating),
            PROPOSED_JOINING => proposed(Role::Joining),
            STABLE => RmapItem::Stable(link()),
            tag => unreachable!("an item of state {tag}"),
        }
    }
}

/// The low and the high word of a key.
#[expect(clippy::cast_possible_truncation, reason = "each half is what remains")]
fn halves(key: u64) -> [u32; 2] {
    [key as u32, (key >> u32::BITS) as u32]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items() -> impl Strategy<Value = RmapItem> {
        let age = || any::<u32>().prop_map(Age::from_bits);
        let id = || any::<u32>().prop_map(ItemId::from_packed);
        let node =
            (1..=u32::MAX >> TAG_BITS).prop_map(|packed| NodeId::from_packed(packed).unwrap());
        let link = (node, id(), id()).prop_map(|(node, next, prev)| Link { node, next, prev });
        let role = prop_oneof![
            Just(Role::Undirected),
            Just(Role::UndirectedUnpledged),
            Just(Role::Creating),
            Just(Role::Joining)
        ];
        prop_oneof![
            age().prop_map(RmapItem::Loose),
            (any::<u64>(), age()).prop_map(|(key, age)| RmapItem::Waiting(Fingerprint(key), age)),
            (any::<u64>(), age()).prop_map(|(key, age)| RmapItem::Collided(Fingerprint(key), age)),
            (link.clone(), role).prop_map(|(link, role)| RmapItem::Proposed { link, role }),
            link.prop_map(RmapItem::Stable),
        ]
    }

    proptest! {
        #[test]
        fn every_state_is_read_as_it_was_written(item in items()) {
            prop_assert_eq!(PackedItem::pack(item).unpack(), item);
        }
    }

    #[test]
    fn a_new_item_is_loose_and_young() {
        assert_eq!(PackedItem::NEW.unpack(), RmapItem::Loose(Age::NEW));
    }
}
