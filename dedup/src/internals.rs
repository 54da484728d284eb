//! What this crate's own tests and benchmarks, and the fuzzer, need besides: a domain's broker as it is in this
//! process, and what goes to it. Not a stable interface.

pub use crate::broker::LocalBroker;
pub use crate::extents::{Extent, ExtentMap};
pub use crate::fingerprint::{Fingerprint, Identity, Secret};
pub use crate::protocol::{
    Admin, AdminReply, AdminRequest, AgentReply, AgentRequest, BATCH, Batch, Broker, BrokerStats,
    Bytes, CompactCursor, Copies, Decision, Directive, IdentityOffer, ItemState, MAX_PARTNERS,
    Offer, Outcome, Page, TRIM_PAGES, UnsharedReason, VmItems,
};
#[cfg(feature = "encoded-messages")]
pub use crate::protocol::{Encoded, MessageError, decode, encode};
pub use crate::regions::{Regions, Visits};
