//! What is sent over Pagefold's control socket, in both directions, as JSON: the bodies of requests and of
//! errors. The answers of requests that are granted are types of the VMM ([`VmStatus`]) and of folding
//! ([`DedupStats`], [`Knobs`], [`Explanation`], [`CompactReport`], [`SettleReport`]).
//!
//! Neither a server nor a client is in it: they are `pagefold-api`'s.

mod address;
mod error;
pub mod request;

pub use pagefold::status::VmStatus;
pub use pagefold_dedup::stats::DedupStats;
pub use pagefold_dedup::{CompactReport, DedupMode, Explanation, Knobs, SettleReport, VmId};

pub use address::{GuestPhys, GuestPhysError};
pub use error::{ErrorBody, ErrorKind};
