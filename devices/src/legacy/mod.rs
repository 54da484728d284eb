//! Devices of the PC that guests expect to be there.

pub mod serial;
