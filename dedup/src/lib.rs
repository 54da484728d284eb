//! Memory deduplication for microVMs in user space.
//!
//! An [`Engine`] folds the memory of any number of VMs: identical pages of VMs of one domain are
//! kept once, in a memory file, and mapped privately where they were. Whoever owns the engine
//! decides when it works:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use pagefold_dedup::{
//!     AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, PAGE_SIZE, Unchanging, VmId,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut engine = Engine::new(EngineConfig::default())?;
//! for id in 0..2 {
//!     let memory = AnonymousMemory::new(64)?;
//!     memory.write(7 * PAGE_SIZE, &[0xa5; PAGE_SIZE]);
//!     let spec = AttachSpec {
//!         domain: "example".to_owned(),
//!         mode: DedupMode::On,
//!         memory: Arc::new(memory),
//!         changes: Box::new(Unchanging),
//!     };
//!     engine.attach(VmId(id), spec)?;
//! }
//! assert!(engine.settle(Duration::from_secs(10), Duration::ZERO).settled);
//! assert_eq!(engine.stats().pages_sharing, 1);
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`Engine`] | all folding of one process, pass by pass |
//! | [`agent`] | one VM's memory: reads, compares, maps |
//! | [`broker`] | one domain's trees, items and store: decides |
//! | [`protocol`] | what agents and the engine ask a broker, and what it answers: plain data |
//! | [`regions`], [`extents`], [`bitmap`] | where the guest sees which page; which pages lie over which slots; sets of pages |
//! | [`fingerprint`] | how a page is found, and how it is named |
//! | [`knobs`] | what can be changed while it works |
//! | [`stats`] | counters |
//! | [`ErrorChain`] | an error with its causes, for a line of text |
//!
//! The feature `encoded-messages` has every message to a broker, and every answer, go as bytes: a test of the
//! messages, which makes folding slower and changes nothing else.
//!
//! It needs Linux 6.7 or later, and a userfaultfd that covers faults of the kernel if KVM runs on
//! the memory ([`GuestMemory::is_written_by_kernel`]); memory that only the process's own threads write
//! needs no privilege. ARCHITECTURE.md says why no write is lost.

pub mod agent;
pub mod bitmap;
pub mod broker;
mod bytes;
mod engine;
mod error_chain;
pub mod extents;
pub mod fingerprint;
mod id_set;
pub mod knobs;
mod mode;
mod number;
pub mod protocol;
pub mod regions;
pub mod stats;
mod sys;
mod types;
mod unfolded;
mod workers;

pub use agent::walk::{Mapping, PageState};
pub use agent::{
    ChangeConsumer, ChangeSource, DiscardReport, LayoutChange, RelocateError, RelocateReport,
    SharedChanges, StepWork, Unchanging, WrittenPages,
};
pub use engine::{
    AttachError, AttachSpec, CheckError, CloneError, Cloning, CompactReport, Compaction,
    DetachError, Detaching, Discarding, Dup, Engine, EngineConfig, EngineError, Explanation,
    FoundPage, LayoutChangeError, Leave, LimitError, MoveReport, MoveSlotError, PagesError,
    PassReport, Reason, RecoveryReport, RecoverySource, SettleReport, Settling, Sharer, Step,
    WalkError, WalkReport,
};
pub use error_chain::ErrorChain;
pub use knobs::{AdvisorMode, KnobError, Knobs, Run};
pub use mode::{DedupMode, UnknownModeError};
pub use number::{NumberError, parse_number};
pub use protocol::CompactScope;
pub use sys::{
    AnonymousMemory, GuestMemory, Region, RegionError, RemapError, UnfoldableMemory,
    UserfaultfdError, resident_store_bytes,
};
pub use types::{LinearIndex, PAGE_SIZE, Slot, VmId};
