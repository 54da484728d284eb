//! All `unsafe` of this crate: the kernel's memory interfaces behind types that are safe to use.
//!
//! What makes them safe is one contract, [`GuestMemory`]: whoever implements it gives these modules
//! the right to replace, protect and discard its pages. A [`Span`] borrows a [`Space`] that holds
//! such memory, so an address never outlives its mapping; a [`Protected`] span exists only while
//! its pages are write-protected, which is what makes plain references to its bytes sound.
#![allow(unsafe_code)]

mod anonymous;
mod clock;
mod copy;
mod memfd;
mod memory;
mod pagemap;
mod protect;
mod span;
mod uffd;
mod view;

pub use anonymous::AnonymousMemory;
pub(crate) use clock::ThreadClock;
pub(crate) use memfd::Memfd;
pub use memory::{GuestMemory, Region};
pub(crate) use pagemap::{PageKind, Pagemap};
pub(crate) use protect::Protected;
pub use span::RegionError;
pub(crate) use span::{Space, Span};
pub(crate) use uffd::Userfaultfd;
pub use uffd::UserfaultfdError;
pub(crate) use view::StoreView;
