//! Requests to a broker, and its replies.
//!
//! [`Broker`] has the calls of the agents of a domain's VMs, [`Admin`] those of the engine that drives them.
//! Within one process the traits are function calls. Nothing in them depends on that: arguments, results
//! and errors are plain data that serde can write and read, without references into the broker; what may be
//! long comes in batches. What is no data stays outside: the store's descriptor is taken from the broker where
//! that is made.
#![forbid(unsafe_code)]

mod admin;
mod agent;
mod compaction;
mod error;
mod item_state;
#[cfg(any(test, feature = "internals"))]
mod message;
mod unshared_reason;

use std::any::Any;

#[cfg(any(test, feature = "internals"))]
pub use crate::bytes::{Bytes, Page};
pub use admin::{Admin, BATCH, Batch, BrokerStats, Copies, TRIM_PAGES, VmItems};
pub use agent::{Broker, Decision, Directive, IdentityOffer, MAX_PARTNERS, Offer, Outcome};
pub(crate) use compaction::Candidate;
pub use compaction::{CompactCursor, CompactScope};
pub use error::{
    BrokerError, BusyError, IndexError, MaxPageSharingError, MoveError, ReportError, SystemError,
};
pub use item_state::ItemState;
#[cfg(any(test, feature = "internals"))]
pub use message::{AdminReply, AdminRequest, AgentReply, AgentRequest};
#[cfg(feature = "encoded-messages")]
pub use message::{Encoded, MessageError, decode, encode};
pub use unshared_reason::UnsharedReason;

/// The broker of one domain as its engine has it, wherever it is.
pub(crate) trait DomainBroker: Broker + Admin + Any + Send {}

impl<B: Broker + Admin + Any + Send> DomainBroker for B {}
