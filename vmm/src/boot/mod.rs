//! From zeroed memory to a guest about to execute its first instruction.

mod builtin;
mod clock;
mod flat;
mod image;
mod paging;
mod registers;

use vm_memory::{GuestAddress, GuestMemoryError};

pub(crate) use builtin::load_builtin;
pub use builtin::{BUILTIN_IMAGE, BuiltinError};
pub(crate) use clock::tsc_khz;
pub use flat::FlatError;
pub(crate) use flat::load_flat;
pub use image::LoadImageError;
pub(crate) use registers::{general_registers, special_registers};

use crate::config::Privilege;

/// With what the vCPU begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The first instruction.
    pub(crate) instruction: GuestAddress,
    /// The stack pointer.
    pub(crate) stack: u64,
    /// The top page table.
    pub(crate) page_tables: u64,
    /// The first argument, as the C calling convention passes it.
    pub(crate) argument: u64,
    /// The privilege level.
    pub(crate) privilege: Privilege,
}

/// A write to guest memory that does not fit into it.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the {what} to guest memory at {address:#x}: the VM's memory is too small")]
pub struct WriteError {
    /// What was to be written.
    what: &'static str,
    /// The guest-physical address.
    address: u64,
    /// vm-memory's reason.
    #[source]
    source: GuestMemoryError,
}
