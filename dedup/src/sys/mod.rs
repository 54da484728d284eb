//! All `unsafe` of this crate: the kernel's memory interfaces behind types that are safe to use.
//!
//! What makes them safe is one contract, [`GuestMemory`]: whoever implements it gives these modules
//! the right to replace, protect, discard and move its pages. A [`Space`] holds such memory and a
//! [`Span`] borrows it, so an address never outlives its mapping; a [`Protected`] span exists only while
//! its pages are write-protected, which is what makes plain references to its bytes sound.
#![allow(unsafe_code)]

mod anonymous;
mod backoff;
mod bounds;
mod clock;
mod copy;
mod fixed;
#[cfg(test)]
mod gaps;
mod large_folios;
mod late_sleepers;
mod locked;
mod maps;
mod memfd;
mod memory;
mod page_mover;
mod pagemap;
mod policy;
mod protect;
mod relocate;
mod rlimit;
mod scratch;
mod small_pages;
mod space;
mod span;
mod spare;
mod status;
mod swap;
mod uffd;
mod uffd_thread;
mod unfoldable;
mod view;

pub use anonymous::AnonymousMemory;
pub(crate) use bounds::MappingBounds;
pub(crate) use clock::ThreadClock;
pub(crate) use fixed::MapError;
#[cfg(test)]
pub(crate) use fixed::faults;
pub(crate) use large_folios::may_be_unseen as large_folios_may_be_unseen;
pub(crate) use late_sleepers::LateSleepers;
pub(crate) use locked::{locked_bytes, locks_new_mappings, note_locked_bytes};
pub(crate) use maps::{MappingMarks, ProcessMapping};
pub(crate) use memfd::Memfd;
pub use memfd::resident_store_bytes;
pub use memory::{GuestMemory, Region};
pub(crate) use page_mover::{MAX_MOVE_PAGES, MakeAnonymousError, PageMover};
pub(crate) use pagemap::{PageEntry, PageKind, Pagemap};
pub(crate) use policy::MemoryPolicy;
pub(crate) use protect::Protected;
pub use relocate::RemapError;
#[cfg(test)]
pub(crate) use scratch::faults::refuse_all as refuse_moves;
pub use space::RegionError;
pub(crate) use space::{Piece, Space};
pub(crate) use span::Span;
pub(crate) use spare::SpareMapping;
pub(crate) use status::status_bytes;
pub(crate) use swap::has_swap;
pub use uffd::UserfaultfdError;
pub(crate) use uffd::{Faults, Userfaultfd};
pub use unfoldable::UnfoldableMemory;
pub(crate) use view::StoreView;
