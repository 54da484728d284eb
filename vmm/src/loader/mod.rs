//! From zeroed memory to a guest about to execute its first instruction.
//!
//! | file | what it is |
//! |---|---|
//! | `builtin`, `flat`, `linux` | the guests there are, each a `Loader` |
//! | `image` | an ELF image into guest memory |
//! | `paging` | the page tables that these guests start on |
//! | `registers` | an `Entry` as KVM's registers |
//! | `clock` | how fast a time-stamp counter runs |

mod builtin;
mod clock;
mod flat;
mod image;
mod linux;
mod paging;
mod registers;

use vm_memory::{GuestAddress, GuestMemoryError};

pub use builtin::{BUILTIN_IMAGE, BuiltinError};
pub(crate) use clock::tsc_khz;
pub use flat::FlatError;
pub use image::{ElfTarget, LoadImageError};
pub use linux::LinuxError;
pub(crate) use registers::{general_registers, special_registers};

use crate::config::Privilege;
use crate::memory::{GuestRam, MemoryLayout};

/// What puts a kernel into guest memory, and returns how vCPUs begin to execute it.
pub(crate) trait Loader {
    /// Whether the guest can run in a VM with memory as in `layout` and `vcpus` vCPUs, checked before
    /// there is one.
    ///
    /// # Errors
    ///
    /// When it cannot, or could not use all of them.
    fn check(&self, layout: MemoryLayout, vcpus: u32) -> Result<(), LoadError>;

    /// Fills memory that is still zero, for `vcpus` vCPUs whose time-stamp counters run at `tsc_khz`,
    /// and returns with what each of them begins, in order; those that the guest itself starts are left out.
    ///
    /// # Errors
    ///
    /// When the guest does not fit or does not make sense; some of it may be in memory.
    fn load(&self, ram: &GuestRam, vcpus: u32, tsc_khz: u32) -> Result<Vec<Entry>, LoadError>;
}

/// Why a guest was not loaded; some of it may be in guest memory.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The built-in guest.
    #[error(transparent)]
    Builtin(#[from] BuiltinError),
    /// A flat image.
    #[error(transparent)]
    Flat(#[from] FlatError),
    /// A Linux kernel.
    #[error(transparent)]
    Linux(#[from] LinuxError),
}

/// With what a vCPU begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The first instruction.
    pub(crate) instruction: GuestAddress,
    /// The stack pointer.
    pub(crate) stack: u64,
    /// The top page table, in long mode; `None` in protected mode without paging.
    pub(crate) page_tables: Option<u64>,
    /// The argument.
    pub(crate) argument: Argument,
    /// The privilege level.
    pub(crate) privilege: Privilege,
}

/// What a guest begins with in a register, as its boot protocol has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Argument {
    /// In RDI: the C calling convention.
    Rdi(u64),
    /// In RSI: Linux's 64-bit boot protocol.
    Rsi(u64),
    /// In EBX: PVH.
    Ebx(u64),
}

/// A write to guest memory that does not fit into it.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the {what} to guest memory at {address:#x}: the VM's memory is too small")]
pub struct WriteError {
    /// What was to be written.
    pub(crate) what: &'static str,
    /// The guest-physical address.
    pub(crate) address: u64,
    /// vm-memory's reason.
    #[source]
    pub(crate) source: GuestMemoryError,
}
