//! Everything that is unsafe: entry, port I/O, the clock, memory, and what the compiler expects of
//! a C library.

#![allow(unsafe_code)]

mod entry;
mod intrinsics;
mod memory;
mod port;
mod tsc;

pub(crate) use memory::Memory;
pub(crate) use port::{read_u32, write_u8, write_u32};
pub(crate) use tsc::read_tsc;
