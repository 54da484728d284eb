//! Pagefold's VMM as a library: microVMs on KVM whose memory is folded.
//!
//! A program that embeds it makes one [`Host`], and as many VMs on it as it likes:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use pagefold::config::{BuiltinGuest, VmConfig};
//! use pagefold::{Host, HostConfig};
//! use pagefold_guest::workload::Preset;
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
//! The library never ends the process, installs no signal handler and sets up no logger. Its
//! threads, one for the host and one for each VM, block every signal that is not about a fault of
//! their own, so that the program's handlers run on the program's threads.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | what a VM is to be |
//! | `host`, `builder`, `vm`, `operation` | [`Host`], [`VmBuilder`], [`VmHandle`], [`Operation`] |
//! | [`status`] | what there is to know about a VM |
//! | [`memory`] | guest RAM, and what was written to it |
//! | [`boot`] | from zeroed memory to the first instruction |
//! | `vcpu` | the thread that runs a guest |
//! | `console`, `watch` | what a guest says, and waiting for it |
//! | `event_loop`, `registry` | ends of VMs, and all VMs |
//! | `kvm`, `sys` | the kernel |
//! | [`dedup_host`] | folding |
//! | [`api`] | the control socket |

pub mod api;
pub mod boot;
mod builder;
pub mod config;
mod console;
pub mod dedup_host;
mod event_loop;
mod host;
mod kvm;
pub mod memory;
mod operation;
mod registry;
pub mod status;
mod sys;
mod vcpu;
mod vm;
mod watch;

pub use builder::{BuildError, VmBuilder};
pub use event_loop::EventLoopError;
pub use host::{Host, HostConfig, HostError};
pub use kvm::OpenKvmError;
pub use operation::{Operation, OperationError, WaitError};
pub use vcpu::{InternalError, SpawnVcpuError, StopReason};
pub use vm::{ExplainError, SetDedupError, SetMergeableError, VmHandle};
