//! A VM's memory: the RAM itself, whether the host can bear it, and what was written to it.

pub mod dirty_log;
pub mod host_check;
mod ram;

pub use dirty_log::KvmDirtyLog;
pub use host_check::{HostMemoryError, HostMemoryPool, MemoryReservation};
pub use ram::{GuestMemory, GuestRam, GuestRamError, MAX_MEMORY_BYTES, RamRegion};
