//! A VM's memory: where it lies, the RAM itself, whether the host has room for it, and what was written to it.

mod addresses;
pub mod dirty_log;
mod error;
pub mod host_check;
mod layout;
mod ram;

pub use addresses::{HOLE_END, HOLE_START, MAX_MEMORY_BYTES};
pub use dirty_log::KvmDirtyLog;
pub use error::GuestRamError;
pub use host_check::{HostMemoryError, HostMemoryPool, MemoryReservation};
pub use layout::MemoryLayout;
pub use ram::{GuestMemory, GuestRam, RamRegion};
