//! What the tests of whole VMs and whole processes share.
//!
//! | module | what it is for |
//! |---|---|
//! | [`command`] | the `pagefold` command: built once, run, listened to, signalled |
//! | [`testbed`] | a process of its own with VMs in known states, for measuring from outside |
//! | [`proc`] | what the kernel reports of a process: mappings, proportional sizes, descriptors |
//! | [`guest_ram`] | the guests' RAM as the kernel holds it, and reaching into it |
//! | [`http`] | a plain HTTP client over a Unix socket, for requests well-formed and not |
//! | [`prometheus`] | reading Prometheus text |
//!
//! Everything here panics when it does not work: a failure of the harness is a failure of the test
//! that uses it.
#![allow(clippy::missing_panics_doc, reason = "see above")]

pub mod command;
pub mod guest_ram;
pub mod http;
pub mod proc;
pub mod prometheus;
pub mod testbed;

use std::time::Duration;

/// Longer than anything here takes: only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Whether two figures differ by at most `per_cent` per cent of `whole`.
pub fn agree_within(per_cent: u64, whole: u64, one: u64, other: u64) -> bool {
    u128::from(one.abs_diff(other)) * 100 <= u128::from(whole) * u128::from(per_cent)
}
