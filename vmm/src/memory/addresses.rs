//! Which guest-physical addresses can be memory.

/// The first address of the hole for devices, interrupt controllers and firmware.
pub const HOLE_START: u64 = 3 << 30;
/// The first address above the hole.
pub const HOLE_END: u64 = 4 << 30;

/// The most memory a VM can have, 1 TiB: 2^28 of the 2^32 linear indexes that all VMs of a domain
/// share. The processor may address less.
pub const MAX_MEMORY_BYTES: u64 = 1 << 40;
