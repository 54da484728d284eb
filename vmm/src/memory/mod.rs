//! A VM's memory: where it lies, the RAM itself, whether the host has room for it, and what was written to it.

pub mod dirty_log;
pub mod host_check;
mod layout;
mod ram;

pub use dirty_log::KvmDirtyLog;
pub use host_check::{HostMemoryError, HostMemoryPool, MemoryReservation};
pub use layout::{HOLE_END, HOLE_START, MAX_MEMORY_BYTES, MemoryLayout};
pub use ram::{GuestMemory, GuestRam, GuestRamError, RamRegion};
