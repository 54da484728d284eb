//! What the VMM and the built-in guest agree on.
//!
//! The built-in guest is a freestanding program that fills its memory with pages whose bytes
//! follow from a seed, keeps rewriting some of them, and checks all of them over and over. This
//! library is compiled into both sides: the VMM writes a [`params::Params`] page and reads
//! [`report`] lines, the guest (`main.rs`, feature `freestanding`) does the reverse, and tests
//! recompute what any page must hold from [`placement`] and [`pattern`].
//!
//! | module | what is agreed on |
//! |---|---|
//! | [`layout`] | where things lie in guest-physical memory |
//! | [`page_tables`] | the identity map the guest starts on |
//! | [`params`] | the parameter page |
//! | [`ports`] | the I/O ports the guest touches, and what they mean |
//! | [`workload`] | the presets behind `builtin:NAME` |
//! | [`placement`] | which content lies on which page |
//! | [`pattern`] | the bytes of each content |
//! | [`report`] | the lines on the serial port |
//! | [`rng`], [`pace`], [`pending`] | the guest's parts that are worth testing on a host |
//!
//! Nothing here allocates or is unsafe.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod layout;
pub mod pace;
pub mod page_tables;
pub mod params;
pub mod pattern;
pub mod pending;
pub mod placement;
pub mod ports;
pub mod report;
pub mod rng;
pub mod workload;

/// Bytes in a page.
pub const PAGE_BYTES: u64 = 4096;
