//! Which class each error is in.

use super::Classified;
use super::ErrorClass::{self, Bug, Busy, Caller, Host};
use crate::agent::{AgentError, AgentSetupError, MappingError, RelocateError};
use crate::all_in_class;
use crate::broker::DomainError;
use crate::config::LimitError;
use crate::engine::{
    AttachError, CheckError, CloneError, DetachError, EngineError, LayoutChangeError,
    MoveSlotError, PagesError, WalkError,
};
use crate::knobs::KnobError;
use crate::mode::UnknownModeError;
use crate::number::NumberError;
use crate::protocol::{
    BrokerError, BusyError, IndexError, MaxPageSharingError, MoveError, ReportError, SystemError,
};
use crate::regions::{LayoutError, RegionsCheckError};
use crate::sys::{RegionError, RemapError, UnfoldableMemory, UserfaultfdError};

all_in_class!(
    Caller: LayoutError, LimitError, NumberError, RegionError, UnknownModeError, WalkError,
);
all_in_class!(Busy: BusyError);
all_in_class!(Host: SystemError, UserfaultfdError);
all_in_class!(Bug: IndexError, RegionsCheckError);

impl Classified for AgentError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Changes(_) | Self::Pagemap(_) | Self::Unmerge(_) => Host,
            Self::Broker(error) => error.class(),
        }
    }
}

impl Classified for AgentSetupError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Regions(error) => error.class(),
            Self::Layout(error) => error.class(),
            Self::Unfoldable(error) => error.class(),
            Self::Userfaultfd(error) => error.class(),
            Self::Prepare(_) | Self::Pagemap(_) => Host,
        }
    }
}

impl Classified for AttachError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Attached(_) | Self::Occupied { .. } => Caller,
            Self::Broker { source, .. } => source.class(),
            Self::Domain { source, .. } => source.class(),
            Self::Store { .. } => Host,
            Self::Agent { source, .. } => source.class(),
        }
    }
}

impl Classified for BrokerError {
    fn class(&self) -> ErrorClass {
        match self {
            // An agent sends no such message.
            Self::UnknownVm(_)
            | Self::VmExists(_)
            | Self::BadLinearIndex { .. }
            | Self::BadSlot { .. }
            | Self::StillShared { .. }
            | Self::BadLength(_) => Bug,
            Self::NoItems { .. } | Self::Store(_) => Host,
        }
    }
}

impl Classified for CheckError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Index { source, .. } => source.class(),
            Self::Changes { source, .. } => source.class(),
            Self::Mappings { source, .. } => source.class(),
            Self::Disagreement { .. } => Bug,
        }
    }
}

impl Classified for CloneError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NoParent(_) | Self::Shape { .. } => Caller,
            Self::Lost { .. } => Host,
            Self::Attach { source, .. } => source.class(),
        }
    }
}

impl Classified for DetachError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Agent { source, .. } => source.class(),
            Self::Mapped { .. } => Host,
        }
    }
}

impl Classified for DomainError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::MaxPageSharing(_) | Self::EmptyStore => Caller,
            Self::Secret(_) | Self::Store(_) => Host,
        }
    }
}

impl Classified for EngineError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Threads(_) | Self::Limits(_) => Host,
            Self::Config(error) => error.class(),
            Self::Knobs(error) => error.class(),
        }
    }
}

impl Classified for KnobError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Unknown { .. } | Self::BadValue { .. } | Self::AdvisorRange { .. } => Caller,
            Self::Advised | Self::Busy { .. } => Busy,
        }
    }
}

impl Classified for LayoutChangeError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NoVm(_) => Caller,
            Self::Refused { source, .. } => source.class(),
        }
    }
}

impl Classified for MappingError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Read(_) => Host,
            Self::Regions(error) => error.class(),
            Self::Differs { .. } => Bug,
        }
    }
}

impl Classified for MaxPageSharingError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::TooSmall(_) => Caller,
            Self::Busy { .. } => Busy,
        }
    }
}

impl Classified for MoveError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Empty(_) => Caller,
            Self::Busy(_) => Busy,
            Self::Full | Self::Damaged(_) | Self::Store(_) => Host,
        }
    }
}

impl Classified for MoveSlotError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Domain(error) => error.class(),
            Self::Broker { source, .. } => source.class(),
        }
    }
}

impl Classified for PagesError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NoVm(_) | Self::NoPages { .. } => Caller,
            Self::InUse(_) => Busy,
        }
    }
}

impl Classified for RelocateError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NoVm(_) | Self::Occupied { .. } | Self::Kernel(_) => Caller,
            Self::Layout { source, .. } => source.class(),
            Self::Memory { source, .. } => source.class(),
        }
    }
}

impl Classified for RemapError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NoPages { .. }
            | Self::Destination { .. }
            | Self::Locked { .. }
            | Self::Hole { .. } => Caller,
            Self::Mappings(_) | Self::Refused(_) | Self::Stranded { .. } => Host,
        }
    }
}

impl Classified for ReportError {
    fn class(&self) -> ErrorClass {
        self.source.class()
    }
}

impl Classified for UnfoldableMemory {
    fn class(&self) -> ErrorClass {
        match self {
            Self::LocksNewMappings
            | Self::Locked { .. }
            | Self::Hugetlb { .. }
            | Self::NotAnonymous { .. }
            | Self::Hole { .. } => Caller,
            Self::Read(_) => Host,
        }
    }
}
