//! Devices that PCs have had from the beginning.

pub mod i8042;
pub mod serial;
