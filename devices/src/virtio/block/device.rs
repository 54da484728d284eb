//! The device: requests taken off its queue, and handed back.

use std::fmt;
use std::sync::{Arc, Weak};

use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::{Queue, QueueOwnedT, QueueT};

use super::config::{CONFIG_BYTES, FLUSH, config, features};
use super::flight::Flight;
use super::metrics::BlockMetrics;
use super::request::MAX_DESCRIPTORS;
use super::storage::Storage;
use crate::DeviceMemory;
use crate::virtio::{InFlight, Processed, QueueError, QueueWaker, VirtioDevice};
use crate::workers::WorkerPool;

/// Requests that may wait, of one descriptor each.
const QUEUE_SIZE: u16 = MAX_DESCRIPTORS;

/// A block device in memory of type `M`.
pub struct Block<M> {
    flight: Arc<Flight<M>>,
    features: u64,
    config: [u8; CONFIG_BYTES],
    /// They are the host's, which may be gone before the registers of a VM that has ended.
    workers: Weak<WorkerPool>,
    /// What its requests lie in, once there were any.
    memory: Option<Arc<M>>,
}

impl<M: DeviceMemory + 'static> Block<M> {
    /// A device for `storage`, whose requests `workers` carry out. When some are done, `waker` has its queue be
    /// processed.
    pub fn new(
        storage: Box<dyn Storage>,
        workers: &Arc<WorkerPool>,
        waker: Arc<dyn QueueWaker>,
    ) -> Self {
        let (features, config) = (features(&*storage), config(&*storage));
        let flight = Arc::new(Flight::new(storage.into(), waker));
        Self { flight, features, config, workers: Arc::downgrade(workers), memory: None }
    }

    /// What it has done so far, and goes on doing.
    pub fn metrics(&self) -> Arc<BlockMetrics> {
        self.flight.metrics()
    }
}

impl<M: DeviceMemory + Clone + 'static> VirtioDevice<M> for Block<M> {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.config.get(offset..));
        for (to, from) in data.iter_mut().zip(rest.unwrap_or_default()) {
            *to = *from;
        }
    }

    fn activate(&mut self, features: u64) {
        self.flight.set_write_through(features & FLUSH == 0);
    }

    /// Hands back what is done, and takes as many requests as it may have at a time: it never waits for the disk.
    fn process(
        &mut self,
        _index: usize,
        queue: &mut Queue,
        memory: &M,
    ) -> Result<Processed, QueueError> {
        let completed = self.flight.take_completed();
        for &(head, written) in &completed {
            queue.add_used(memory, head, written)?;
        }
        let memory = self.memory.get_or_insert_with(|| Arc::new(memory.clone()));
        let room = usize::from(queue.size()).saturating_sub(self.flight.count());
        let mut taken = Vec::new();
        // When all room is taken, there is more once a request is done: then this is called again.
        let mut is_more = false;
        // The driver may add requests as fast as they are taken.
        for _ in 0..room {
            queue.disable_notification(&**memory)?;
            let next = queue.iter(Arc::clone(memory))?.next();
            is_more = if let Some(chain) = next {
                taken.push(chain);
                taken.len() < room
            } else {
                queue.enable_notification(&**memory)?
            };
            if !is_more {
                break;
            }
        }
        self.flight.add(taken, &self.workers);
        let is_interrupt_needed = !completed.is_empty() && queue.needs_notification(&**memory)?;
        Ok(Processed { is_interrupt_needed, is_more })
    }

    fn set_paused(&mut self, is_paused: bool) {
        self.flight.set_paused(is_paused, &self.workers);
    }

    fn in_flight(&self) -> Option<Arc<dyn InFlight>> {
        Some(Arc::clone(&self.flight) as Arc<dyn InFlight>)
    }

    fn reset(&mut self) {
        self.flight.reset();
        self.memory = None;
    }

    fn end(&mut self) {
        VirtioDevice::<M>::reset(self);
        self.flight.close();
    }
}

impl<M> fmt::Debug for Block<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").finish_non_exhaustive()
    }
}
