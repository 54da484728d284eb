//! Pagefold's VMM as a library: microVMs on KVM whose memory is folded.
//!
//! A program that embeds it makes one [`Host`], and as many VMs on it as it likes:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use pagefold::{BuiltinGuest, Host, HostConfig, Preset, VmConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::new(HostConfig::default())?;
//! let guest = BuiltinGuest { preset: Preset::Mix, vm_number: 0, seed: 1 };
//! let vm = host.vm(VmConfig::builtin(64 << 20, guest)).build()?;
//! vm.start()?;
//! vm.wait_ready(Duration::from_secs(10))?;
//! println!("{}", vm.stop());
//! # Ok(())
//! # }
//! ```
//!
//! Whoever embeds it needs no other package: [`dedup`], [`guest`] and [`vm_memory`] are re-exported.
//!
//! The library never ends the process, installs no signal handler and sets up no logger. Its
//! threads, one for the host and one for each VM, block every signal that is not about a fault of
//! their own, so that the program's handlers run on the program's threads.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | what a host, its folding and its VMs are to be |
//! | `host`, `builder`, `vm`, `operation` | [`Host`], [`VmBuilder`], [`VmHandle`], [`Operation`] |
//! | [`status`] | the state and the counters of a VM |
//! | [`memory`] | guest RAM, and what was written to it |
//! | [`loader`] | from zeroed memory to the first instruction |
//! | `vcpu` | the thread that runs a guest |
//! | `extension` | what a VM has for its kind of guest alone |
//! | `builtin` | the built-in guest's extension: its devices, its parameters, its reports |
//! | `guest_kinds` | the guests there are, and what each needs |
//! | `pc`, `platform` | the machine that stock kernels expect, and which machine a guest runs on |
//! | `console`, `watch` | a guest's lines, and waiting for what a VM does |
//! | `event_loop`, `registry` | ends of VMs, and all VMs |
//! | `kvm`, `sys` | the kernel |
//! | [`limits`] | what this process may have, and which limit an error comes from |
//! | [`dedup_host`] | folding |

mod builder;
mod builtin;
pub mod config;
mod console;
pub mod dedup_host;
mod error_class;
mod event_loop;
mod extension;
mod guest_kinds;
mod host;
mod kvm;
pub mod limits;
pub mod loader;
pub mod memory;
mod operation;
mod pc;
mod platform;
mod registry;
pub mod status;
mod sys;
mod vcpu;
mod vm;
mod watch;

/// The folding engine alone, for memory of anything that can report which of its pages changed.
pub use pagefold_dedup as dedup;
pub use pagefold_dedup::{
    AdvisorMode, Classified, CompactReport, CompactScope, DedupMode, EngineConfig, ErrorClass,
    KnobError, Knobs, Run, SettleReport, VmId, stats::DedupStats,
};
/// The built-in guest: its parameters, and what it prints.
pub use pagefold_guest as guest;
pub use pagefold_guest::ports::Control;
pub use pagefold_guest::workload::Preset;
/// How guest memory is read and written.
pub use vm_memory;

pub use builder::{BuildError, VmBuilder};
pub use builtin::BuiltinStatus;
pub use config::{
    BuiltinGuest, DedupConfig, DiskConfig, Guest, HostConfig, LinuxGuest, PcDevices, VmConfig,
};
pub use dedup_host::{DedupHost, SettleError};
pub use event_loop::EventLoopError;
pub use host::{ForgetError, Host, HostError};
pub use kvm::OpenKvmError;
pub use operation::{Operation, OperationError, WaitError};
pub use sys::signal::block_in_this_thread as block_signals_in_this_thread;
pub use vcpu::{InternalError, SpawnVcpuError, StopReason};
pub use vm::{ExplainError, SetDedupError, SetMergeableError, VmHandle};
