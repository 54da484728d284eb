//! What a device is to the transport.

use std::sync::Arc;

use virtio_queue::Queue;

use super::{InFlight, QueueError};
use crate::DeviceMemory;

/// What came of the requests of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Processed {
    /// Whether the driver is to be interrupted: there is something in the used ring that it waits for.
    pub is_interrupt_needed: bool,
    /// Whether there may be more requests: it is to be called again, when others had their turn.
    pub is_more: bool,
}

/// A device behind a transport, in memory of type `M`.
///
/// The transport negotiates features, and keeps the queues. It calls a device only while its driver is ready, and
/// with queues whose rings lie in memory.
pub trait VirtioDevice<M: DeviceMemory>: Send {
    /// What it is (virtio 1.2, chapter 5).
    fn device_type(&self) -> u32;

    /// The features that it offers besides those of the transport.
    fn features(&self) -> u64 {
        0
    }

    /// How many descriptors each of its queues has at most: powers of 2 up to 32768.
    fn queue_sizes(&self) -> &[u16];

    /// Fills `data` with its configuration from `offset` on, as far as there is any. The rest stays as it is.
    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    /// Takes what the driver writes to its configuration.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// Takes note that its driver is ready, and has accepted these features.
    fn activate(&mut self, _features: u64) {}

    /// Carries out requests of queue `index`, no more than the queue has descriptors.
    ///
    /// # Errors
    ///
    /// When the queue itself makes no sense: the device is out of order until its driver resets it. What is wrong with
    /// a request fails that request alone.
    fn process(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &M,
    ) -> Result<Processed, QueueError>;

    /// Has it begin nothing until it is to go on: it is not called to [`process`](Self::process) meanwhile. What it has
    /// begun is [waited for](Self::in_flight).
    fn set_paused(&mut self, _is_paused: bool) {}

    /// What is to be waited for after it was paused or reset; `None` if it carries out everything while it is called.
    fn in_flight(&self) -> Option<Arc<dyn InFlight>> {
        None
    }

    /// Forgets everything that its driver has it do, and drops memory: it is as new, once what it has begun is [waited
    /// for](Self::in_flight).
    fn reset(&mut self) {}

    /// Gives back what it has of the host, besides: the machine is gone.
    fn end(&mut self) {
        self.reset();
    }
}
