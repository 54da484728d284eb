//! Why an engine did not carry out a request, or contradicts itself.

use std::io;

use crate::VmId;
use crate::agent::{AgentError, AgentSetupError, MappingError};
use crate::broker::DomainError;
use crate::config::LimitError;
use crate::knobs::KnobError;
use crate::protocol::{BrokerError, IndexError};

/// Why an engine could not be made. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Its threads did not start.
    #[error("cannot start the folding threads")]
    Threads(#[source] rayon::ThreadPoolBuildError),
    /// The host does not report its limits.
    #[error("cannot find out the host's limits; is /proc mounted?")]
    Limits(#[source] io::Error),
    /// A limit has a value that makes no sense.
    #[error(transparent)]
    Config(#[from] LimitError),
    /// A knob has a value that makes no sense.
    #[error("cannot work so")]
    Knobs(#[source] KnobError),
}

/// Why a VM could not be attached. The engine and the VM's memory are as they were.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It is attached already, to this domain or another.
    #[error("VM {0} is attached already; detach it first, or choose another number")]
    Attached(VmId),
    /// Memory of a VM, itself or another, is at its addresses: it was attached before, or a part of
    /// a VM was [moved](crate::Engine::relocate) there.
    #[error(
        "memory of VM {occupant} is where VM {vm} is to have its own; detach VM {occupant} first, \
         or give VM {vm} other memory"
    )]
    Occupied {
        /// The VM that was to be attached.
        vm: VmId,
        /// Whose memory is there.
        occupant: VmId,
    },
    /// The domain's broker refused it.
    #[error("the broker of domain '{domain}' refused VM {vm}")]
    Broker {
        /// The VM.
        vm: VmId,
        /// Its domain.
        domain: String,
        /// Why.
        #[source]
        source: BrokerError,
    },
    /// The domain could not be made.
    #[error("cannot make domain '{domain}'")]
    Domain {
        /// Its name.
        domain: String,
        /// Why.
        #[source]
        source: DomainError,
    },
    /// The domain's store could not be opened.
    #[error("cannot open the store of domain '{domain}'")]
    Store {
        /// The domain.
        domain: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The VM's memory cannot be folded.
    #[error("cannot fold the memory of VM {vm}")]
    Agent {
        /// The VM.
        vm: VmId,
        /// Why.
        #[source]
        source: AgentSetupError,
    },
}

/// Why the engine's picture of memory is wrong: a defect.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// In a domain's index.
    #[error("domain '{domain}'")]
    Index {
        /// The domain.
        domain: String,
        /// What is wrong.
        #[source]
        source: IndexError,
    },
    /// Nothing may be, but a VM's change source does not report what was written.
    #[error("the changes of VM {vm}")]
    Changes {
        /// The VM.
        vm: VmId,
        /// Why not.
        #[source]
        source: AgentError,
    },
    /// In a VM's mappings.
    #[error("the mappings of VM {vm}")]
    Mappings {
        /// The VM.
        vm: VmId,
        /// What is wrong.
        #[source]
        source: MappingError,
    },
    /// Between an agent and its broker.
    #[error("VM {vm}: agent and broker disagree: {what}")]
    Disagreement {
        /// The VM.
        vm: VmId,
        /// On what.
        what: String,
    },
}
