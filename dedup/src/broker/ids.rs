//! Typed indexes into the broker's arenas: links without pointers.

use std::num::NonZeroU32;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $spare_bits:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(super) struct $name(NonZeroU32);

        impl $name {
            /// The highest bits, which no id uses.
            pub(super) const SPARE_BITS: u32 = $spare_bits;

            /// The id of the arena's entry `index`, if ids reach that far.
            pub(super) fn from_index(index: usize) -> Option<Self> {
                let packed = u32::try_from(index).ok()?.checked_add(1)?;
                let limit = u32::MAX >> Self::SPARE_BITS;
                NonZeroU32::new(packed).filter(|id| (1..=limit).contains(&id.get())).map(Self)
            }

            /// The id as it is packed with other things: above 0, as its index is not.
            pub(super) fn to_packed(self) -> u32 {
                self.0.get()
            }

            /// The id that is packed as this; `None` for 0.
            pub(super) fn from_packed(packed: u32) -> Option<Self> {
                NonZeroU32::new(packed).map(Self)
            }

            /// The entry's index in the arena.
            pub(super) fn index(self) -> usize {
                self.0.get() as usize - 1
            }
        }
    };
}

id! {
    /// An rmap item: one page of one VM.
    ItemId, 0
}
id! {
    /// A stable node: a content that is shared, or about to be, in one slot. Shares a word with an item's state.
    NodeId, 3
}

id! {
    /// A chain: the stable nodes of one content.
    ChainId, 3
}

// What makes the links fit: no link costs four more bytes for being absent.
const _: () = assert!(size_of::<Option<ItemId>>() == 4 && size_of::<Option<NodeId>>() == 4);

/// Verifies that each of so many numbers is in use or free, and just once.
///
/// # Errors
///
/// What does not hold of `what`.
pub(in crate::broker) fn check_numbers_of(
    what: &str,
    count: usize,
    used: impl Iterator<Item = usize>,
    free: impl Iterator<Item = usize>,
) -> Result<(), String> {
    let mut seen = vec![false; count];
    for number in used {
        let Some(seen) = seen.get_mut(number) else {
            return Err(format!("{what} {number} is in use, and there are {count}"));
        };
        if std::mem::replace(seen, true) {
            return Err(format!("{what} {number} is in use twice"));
        }
    }
    for number in free {
        let Some(seen) = seen.get_mut(number) else {
            return Err(format!("{what} {number} is free, and there are {count}"));
        };
        if std::mem::replace(seen, true) {
            return Err(format!("{what} {number} is free, and is in use or free already"));
        }
    }
    match seen.iter().position(|seen| !seen) {
        Some(number) => Err(format!("{what} {number} is neither in use nor free")),
        None => Ok(()),
    }
}
