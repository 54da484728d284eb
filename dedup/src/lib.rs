//! Memory deduplication for microVMs in user space.

pub mod agent;
pub mod bitmap;
pub mod broker;
mod engine;
pub mod extents;
pub mod fingerprint;
mod mode;
pub mod protocol;
pub mod stats;
mod sys;
mod types;

pub use agent::track::{ChangeSource, Unchanging};
pub use engine::{
    AttachError, AttachSpec, CheckError, Engine, EngineConfig, EngineError, PassReport,
    SettleReport,
};
pub use mode::{DedupMode, UnknownModeError};
pub use sys::{AnonymousMemory, GuestMemory, Region, RegionError, UserfaultfdError};
pub use types::{LinearIndex, PAGE_SIZE, Slot, VmId};
