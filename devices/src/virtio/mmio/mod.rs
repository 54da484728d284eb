//! The transport: a page of registers in the address space.
//!
//! | file | what it is |
//! |---|---|
//! | `registers` | the registers' numbers |
//! | `transport` | the registers, as the guest sees them |
//! | `negotiation` | the driver's way from reset to ready |
//! | `event_handler` | what comes from the host's side: queues that are to be processed, a changed configuration |
//! | `shared` | the transport, as vCPUs, the event loop and the VM's owner share it |
//! | `metrics` | what it has done |
//!
//! Source: virtio 1.2, section 4.2; the interface of version 2, without what older drivers had.

mod event_handler;
mod metrics;
mod negotiation;
mod registers;
mod shared;
mod transport;

pub use metrics::{TransportCounts, TransportMetrics};
pub use registers::{NOTIFY_OFFSET, REGISTER_BYTES};
pub use shared::SharedTransport;
pub use transport::MmioTransport;

#[cfg(test)]
mod tests;
