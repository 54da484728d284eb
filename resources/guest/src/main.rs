//! The built-in guest's image: a freestanding program, built by `vmm/build.rs`.
//!
//! It runs in long mode at CPL 3 with IOPL 3, without interrupts or exception handlers, on the
//! identity map of [`pagefold_guest::page_tables`]. Why not at CPL 0: see ARCHITECTURE.md. All that
//! is unsafe is in [`sys`]; the workload is in [`guest`].

#![no_std]
#![no_main]

mod guest;
mod sys;
