//! All `unsafe` of this package: two calls that the standard library does not have.
#![allow(unsafe_code)]

mod clock;
mod mergeable;

pub(crate) use clock::process_cpu_time;
pub(crate) use mergeable::mark_mergeable;
