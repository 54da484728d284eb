//! Everything of this crate that the compiler cannot check: raw calls to KVM and the kernel, each
//! behind a function that is safe to call.

#![allow(unsafe_code)]

pub(crate) mod dirty_log;
pub(crate) mod internal_error;
pub(crate) mod madvise;
pub(crate) mod memslot;
pub(crate) mod ram;
pub(crate) mod run_area;
pub(crate) mod signal;
pub(crate) mod tsc;
