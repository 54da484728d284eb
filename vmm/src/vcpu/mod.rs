//! A virtual CPU: one thread that enters the guest, and handles its exits.
//!
//! | file | what it is |
//! |---|---|
//! | `exit` | why the guest was left: [`VmExit`](exit::VmExit), read out of KVM |
//! | `step` | what to do about it: a pure function |
//! | `state` | what the thread is doing, and how commands and steps change that: pure too |
//! | `kick` | taking a vCPU out of the guest |
//! | `run` | the thread that puts these together |
//! | `threads` | all of a VM's |
//!
//! Lock order: a vCPU's thread takes only locks that are held for moments: a device's, under it its VM's watch, and
//! under that its guest's extension's own.

pub(crate) mod exit;
mod kick;
mod run;
mod state;
mod step;
mod stop;
mod threads;

pub use crate::sys::internal_error::InternalError;
pub use run::SpawnVcpuError;
pub(crate) use run::{Ended, Vcpu};
pub(crate) use state::Command;
pub use stop::StopReason;
pub(crate) use threads::VcpuThreads;
