//! The entropy source: random bytes of the host's.
//!
//! | file | what it is |
//! |---|---|
//! | `device` | requests, and what they are filled with |
//! | `metrics` | what it has done |
//!
//! It has neither configuration nor state: whatever a snapshot would keep of it must not be used twice.
//!
//! Source: virtio 1.2, section 5.4.

mod device;
mod metrics;

pub use device::Rng;
pub use metrics::{RngCounts, RngMetrics};

#[cfg(test)]
mod tests;
