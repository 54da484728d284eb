//! What a host, its folding and its VMs are to be.

mod devices;
mod disk;
mod folding;
mod guest;
mod host;
mod vm;

pub use devices::PcDevices;
pub use disk::{DiskConfig, ParseDiskError};
pub use folding::{DedupConfig, IntervalError};
pub use guest::{BuiltinGuest, FlatImage, Guest, LinuxGuest, Privilege};
pub use host::HostConfig;
pub use pagefold_dedup::DedupMode;
pub use vm::VmConfig;
