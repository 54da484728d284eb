//! The calls of the protocol as messages, for a broker in another process.

mod admin;
mod agent;
#[cfg(feature = "encoded-messages")]
mod codec;
#[cfg(feature = "encoded-messages")]
mod encoded;
#[cfg(test)]
#[cfg(feature = "encoded-messages")]
mod tests;

pub use admin::{AdminReply, AdminRequest};
pub use agent::{AgentReply, AgentRequest};
#[cfg(feature = "encoded-messages")]
pub use codec::{MessageError, decode, encode};
#[cfg(feature = "encoded-messages")]
pub use encoded::Encoded;
