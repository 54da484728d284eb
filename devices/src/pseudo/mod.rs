//! Devices that no machine has: what a guest made for this VMM needs.

pub mod paravirt;
