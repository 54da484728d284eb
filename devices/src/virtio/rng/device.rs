//! Requests, and what they are filled with.

use std::io::{self, Write};
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_queue::{DescriptorChain, Queue};

use super::metrics::RngMetrics;
use crate::DeviceMemory;
use crate::virtio::queue::carry_out_each;
use crate::virtio::{Processed, QueueError, VirtioDevice};

/// Requests that may wait.
const QUEUE_SIZE: u16 = 64;

/// Bytes that a request is given at most, whatever it asks for: a driver asks again, and others have their turn.
const MAX_BYTES: usize = 4096;

/// An entropy source.
#[derive(Debug, Default)]
pub struct Rng {
    metrics: Arc<RngMetrics>,
}

impl Rng {
    /// What it has done so far, and goes on doing.
    pub fn metrics(&self) -> Arc<RngMetrics> {
        Arc::clone(&self.metrics)
    }
}

impl<M: DeviceMemory> VirtioDevice<M> for Rng {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn process(
        &mut self,
        _index: usize,
        queue: &mut Queue,
        memory: &M,
    ) -> Result<Processed, QueueError> {
        carry_out_each(queue, memory, |chain| {
            let filled = fill(chain, memory);
            match filled {
                Ok(bytes) => self.metrics.count_request(bytes),
                Err(_) => self.metrics.count_failed(),
            }
            filled.unwrap_or(0)
        })
    }
}

/// Fills the buffers of a request with random bytes; returns how many those were.
fn fill<M: DeviceMemory>(chain: DescriptorChain<&M>, memory: &M) -> io::Result<u32> {
    let mut writer = chain.writer(memory).map_err(io::Error::other)?;
    let mut bytes = [0; MAX_BYTES];
    let bytes = &mut bytes[..writer.available_bytes().min(MAX_BYTES)];
    if bytes.is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    getrandom::fill(bytes).map_err(io::Error::other)?;
    writer.write_all(bytes)?;
    u32::try_from(bytes.len()).map_err(io::Error::other)
}
