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
//! | what | where |
//! |---|---|
//! | all folding of one process, pass by pass or step by step, and every request to it | [`Engine`] |
//! | what it is made with, and what can be changed while it works | [`EngineConfig`], [`knobs`] |
//! | what it needs of a VM: its memory, and which pages were written | [`GuestMemory`], [`ChangeSource`] |
//! | what it has done | the reports, and [`stats`] |
//! | what it could not do | the errors, and [`errors`] inside them; [`ErrorChain`] for a line of text, [`ErrorClass`] for who can do something |
//!
//! The rest is private: `agent` is what reads, compares and maps one VM's memory, `broker` has one domain's trees,
//! items and store, and decides; `protocol` is what goes between them. The feature `internals` shows
//! what tests and benchmarks of these need; it is no stable interface.
//!
//! The feature `encoded-messages` has every message to a broker, and every answer, go as bytes: a test of the
//! messages, which makes folding slower and changes nothing else.
//!
//! It needs Linux 6.7 or later, and a userfaultfd that covers faults of the kernel if KVM runs on
//! the memory ([`GuestMemory::is_written_by_kernel`]); memory that only the process's own threads write
//! needs no privilege. ARCHITECTURE.md shows why no write is lost.

// What is public in the modules is what `internals` shows of them.
#![cfg_attr(not(feature = "internals"), allow(unreachable_pub))]

mod agent;
mod broker;
mod bytes;
mod config;
mod engine;
mod error_chain;
mod error_class;
pub mod errors;
mod extents;
mod fingerprint;
mod id_set;
#[cfg(feature = "internals")]
pub mod internals;
mod memory_count;
mod mode;
mod number;
mod page_range;
mod page_set;
mod protocol;
mod regions;
pub mod stats;
mod sys;
mod types;
mod workers;

pub use agent::walk::{Mapping, PageState};
pub use agent::{
    ChangeConsumer, ChangeSource, DiscardReport, LayoutChange, RelocateError, RelocateReport,
    SharedChanges, StepWork, Unchanging, WrittenPages,
};
pub use config::{EngineConfig, LimitError, knobs};
pub use engine::{
    AttachError, AttachSpec, CheckError, CloneError, Cloning, CompactReport, Compaction,
    DetachError, Detaching, Discarding, Dup, Engine, EngineError, Explanation, FoundPage,
    LayoutChangeError, Leave, MoveReport, MoveSlotError, PagesError, PassReport, Reason,
    RecoveryReport, RecoverySource, SettleReport, Settling, Sharer, Step, WalkError, WalkReport,
};
pub use error_chain::ErrorChain;
pub use error_class::{Classified, ErrorClass};
pub use knobs::{AdvisorMode, KnobError, Knobs, Run};
pub use memory_count::{MemoryCount, UnfoldedVm};
pub use mode::{DedupMode, UnknownModeError};
pub use number::{NumberError, parse_number};
pub use page_set::PageSet;
pub use protocol::CompactScope;
pub use sys::{
    AnonymousMemory, GuestMemory, Region, RegionError, RemapError, UnfoldableMemory,
    UserfaultfdError, resident_store_bytes,
};
pub use types::{LinearIndex, PAGE_SIZE, Slot, VmId};
