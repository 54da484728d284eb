//! Virtio devices, and the transport that guests reach them by.
//!
//! | module | what it is |
//! |---|---|
//! | `device` | what a device is to the transport |
//! | `queue` | requests taken off a virtqueue, and handed back to it |
//! | `in_flight` | requests that are carried out beside the thread that processes their queue |
//! | `counts` | what a device and its transport have done |
//! | [`mmio`] | the transport: registers in the address space |
//! | [`block`] | the block device |
//! | [`rng`] | the entropy source |
//!
//! A driver announces its requests by writing to a register, which KVM turns into an event that the VMM's event loop
//! waits for: the loop calls [`MmioTransport::process_queue`], and the vCPU goes on at once. Everything that a
//! driver writes, to registers and to memory, is hostile until it has been checked.
//!
//! Source: Virtual I/O Device (VIRTIO) Version 1.2.

pub mod block;
mod counts;
mod device;
mod in_flight;
pub mod mmio;
mod queue;
pub mod rng;

pub use counts::{DeviceCounts, DeviceMetrics, VirtioCounts, VirtioMetrics};
pub use device::{Processed, VirtioDevice};
pub use in_flight::{InFlight, QueueWaker};
pub use mmio::{MmioTransport, SharedTransport};
pub use queue::QueueError;
