//! What is asked of a broker, and what it answers.
//!
//! Within one process the traits are function calls. Nothing in them depends on that: arguments, results
//! and errors are plain data that serde can write and read, without references into the broker.
#![forbid(unsafe_code)]

mod agent;
mod error;

pub use agent::{Broker, Decision, Directive, NamedOffer, Offer, Outcome};
pub use error::{
    BrokerError, IndexError, MaxPageSharingError, MoveError, ReportError, SystemError,
};
