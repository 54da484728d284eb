//! Typed indexes into the broker's arenas: links without pointers.

use std::num::NonZeroU32;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(super) struct $name(NonZeroU32);

        impl $name {
            /// The id of the arena's entry `index`, if ids reach that far.
            pub(super) fn from_index(index: usize) -> Option<Self> {
                let number = u32::try_from(index).ok()?.checked_add(1)?;
                NonZeroU32::new(number).map(Self)
            }

            /// The entry's position in the arena.
            pub(super) fn index(self) -> usize {
                self.0.get() as usize - 1
            }
        }
    };
}

id! {
    /// An rmap item: one page of one VM.
    ItemId
}
id! {
    /// A stable node: one slot in use.
    NodeId
}

id! {
    /// A chain: the stable nodes of one content.
    ChainId
}

// What makes the links fit: no link costs four more bytes for being absent.
const _: () = assert!(size_of::<Option<ItemId>>() == 4 && size_of::<Option<NodeId>>() == 4);
