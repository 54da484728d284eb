//! Which class each error of the VMM is in.

use pagefold_dedup::{
    Classified,
    ErrorClass::{self, Bug, Busy, Caller, Host},
    all_in_class,
};

use pagefold_devices::virtio::block::OpenImageError;

use crate::builder::BuildError;
use crate::config::IntervalError;
use crate::dedup_host::{AttachError, DedupGone, SetKnobsError, SettleError, StartDedupError};
use crate::event_loop::EventLoopError;
use crate::host::{ForgetError, HostError};
use crate::kvm::OpenKvmError;
use crate::limits::RoomError;
use crate::limits::memory::MemoryError;
use crate::loader::{BuiltinError, FlatError, LinuxError, LoadError, LoadImageError};
use crate::memory::{GuestRamError, HostMemoryError};
use crate::operation::{OperationError, WaitError};
use crate::vcpu::SpawnVcpuError;
use crate::vm::{ExplainError, SetDedupError, SetMergeableError};

all_in_class!(Caller: IntervalError);
all_in_class!(
    Host: EventLoopError, HostMemoryError, MemoryError, OpenKvmError, RoomError, SpawnVcpuError,
);
// Its files and the memory it is given.
all_in_class!(Caller: LinuxError);
// The folding thread ends by itself only when it panics.
all_in_class!(Bug: DedupGone);

impl Classified for AttachError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Engine(error) => error.class(),
            Self::Gone(error) => error.class(),
        }
    }
}

impl Classified for BuildError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NoIds | Self::Kvm { .. } | Self::DiskThread(_) => Host,
            Self::Name(_)
            | Self::AddressBits { .. }
            | Self::Vcpus { .. }
            | Self::VirtioDevices { .. } => Caller,
            Self::Disk(error) => class_of_disk(error),
            Self::Ram(error) => error.class(),
            Self::HostMemory(error) => error.class(),
            Self::Builtin(error) => error.class(),
            Self::Flat(error) => error.class(),
            Self::Linux(error) => error.class(),
            Self::Device(_) => Bug,
            Self::Vcpu(error) => error.class(),
            Self::Dedup { source, .. } => source.class(),
        }
    }
}

impl Classified for BuiltinError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::MemorySize(_) | Self::AboveTheHole { .. } | Self::Vcpus { .. } => Caller,
            Self::Image(error) => error.class(),
            Self::Write(_) => Bug,
        }
    }
}

impl Classified for ExplainError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Stopped(_) | Self::NoMemory { .. } => Caller,
            Self::Gone(error) => error.class(),
        }
    }
}

impl Classified for FlatError {
    fn class(&self) -> ErrorClass {
        match self {
            // Code that is longer than there is memory.
            Self::Write(_) | Self::Vcpus { .. } => Caller,
        }
    }
}

impl Classified for ForgetError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NoVm(_) => Caller,
            Self::NotStopped(_) => Busy,
        }
    }
}

impl Classified for GuestRamError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NotPages { .. } | Self::TooLarge { .. } => Caller,
            Self::Map { .. } | Self::Advise { .. } => Host,
        }
    }
}

impl Classified for HostError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Kvm(error) => error.class(),
            Self::Dedup(error) => error.class(),
            Self::EventLoop(error) => error.class(),
        }
    }
}

impl Classified for LoadError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Builtin(error) => error.class(),
            Self::Flat(error) => error.class(),
            Self::Linux(error) => error.class(),
        }
    }
}

impl Classified for LoadImageError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NotAnImage { .. } | Self::OtherMachine { .. } | Self::DoesNotFit { .. } => Caller,
        }
    }
}

/// Devices depend on nothing that has classes.
fn class_of_disk(error: &OpenImageError) -> ErrorClass {
    match error {
        OpenImageError::Open { .. }
        | OpenImageError::NotADisk { .. }
        | OpenImageError::Size { .. } => Caller,
        OpenImageError::InUse { .. } => Busy,
        OpenImageError::Lock { .. } => Host,
    }
}

impl Classified for OperationError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NotStarted { .. } | Self::Paused { .. } => Busy,
            Self::Stopped { .. } => Caller,
        }
    }
}

impl Classified for SetDedupError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Stopped(_) => Caller,
            Self::Log { .. } => Host,
            Self::Attach { source, .. } => source.class(),
            Self::Refused(error) => error.class(),
            Self::Gone(error) => error.class(),
        }
    }
}

impl Classified for SetKnobsError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Knob(error) => error.class(),
            Self::Gone(error) => error.class(),
        }
    }
}

impl Classified for SetMergeableError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Stopped(_)
            | Self::NotFolded(_)
            | Self::NotPages { .. }
            | Self::NoMemory { .. } => Caller,
            Self::Refused(error) => error.class(),
            Self::Gone(error) => error.class(),
        }
    }
}

impl Classified for SettleError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFolding(_) | Self::TimedOut(_) => Busy,
            Self::Gone(error) => error.class(),
        }
    }
}

impl Classified for StartDedupError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Thread(_) => Host,
            Self::Interval(error) => error.class(),
            Self::Engine(error) => error.class(),
        }
    }
}

impl Classified for WaitError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NotStarted { .. } | Self::Stopped { .. } => Caller,
            Self::TimedOut { .. } => Busy,
        }
    }
}
