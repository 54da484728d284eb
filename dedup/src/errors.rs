//! The errors inside those of an engine.

pub use crate::agent::{AgentError, AgentSetupError, MappingError};
pub use crate::broker::DomainError;
pub use crate::protocol::{
    BrokerError, BusyError, IndexError, MaxPageSharingError, MoveError, ReportError, SystemError,
};
pub use crate::regions::{LayoutError, RegionsCheckError};
