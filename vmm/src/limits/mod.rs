//! Limits of this process, known in one place: what they are, what is left under them, and which
//! one an error comes from.
//!
//! | module | source |
//! |---|---|
//! | [`cgroup`] | control groups, versions 1 and 2: memory and threads |
//! | [`rlimit`] | `ulimit`: address space, files, threads, locked memory |
//! | [`memory`] | the host's memory and that of the control groups, with what this process has of it |
//! | [`mappings`] | `vm.max_map_count` |
//! | [`threads`] | `pids.max` and `ulimit -u` |
//! | [`room`] | whether VMs fit under all of them |
//! | [`advice`](mod@advice) | which limit an error of the kernel's comes from |
//!
//! What the kernel's files contain is parsed by functions of their text, so that every layout can
//! be tried without being on such a machine.

pub mod advice;
pub mod cgroup;
pub mod mappings;
pub mod memory;
pub mod rlimit;
pub mod room;
pub mod threads;
mod tree;

pub use advice::advice;
pub use rlimit::{Resource, Rlimits};
pub use room::RoomError;
pub use tree::Tree;
