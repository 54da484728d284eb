//! Everything of this crate that the compiler cannot check: raw calls to the kernel, each behind a function that is
//! safe to call.

#![allow(unsafe_code)]

pub(crate) mod vectored;
