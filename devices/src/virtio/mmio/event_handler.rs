//! What comes from the host's side: queues that are to be processed, a changed configuration.

use virtio_queue::QueueT;

use super::metrics::count;
use super::registers::{CONFIG_CHANGE, USED_BUFFER};
use super::transport::MmioTransport;
use crate::DeviceMemory;
use crate::virtio::QueueError;

impl<M: DeviceMemory> MmioTransport<M> {
    /// Has the device carry out requests of queue `index`, and interrupts the driver if it waits for that; returns
    /// whether there may be more, for which this is to be called again. Nothing happens while the driver is not
    /// ready, or the device is paused. O(descriptors of the queue).
    ///
    /// # Errors
    ///
    /// When there is no such queue, or it makes no sense: then the device does nothing more until its driver resets it,
    /// of which it is notified.
    pub fn process_queue(&mut self, index: usize) -> Result<bool, QueueError> {
        count(&self.metrics.notifications);
        let Some(slot) = self.queues.get_mut(index) else {
            return Err(virtio_queue::Error::InvalidDescriptorIndex.into());
        };
        let is_active = !self.is_paused && self.negotiation.is_active() && slot.queue.ready();
        let Some(memory) = self.memory.as_ref().filter(|_| is_active) else { return Ok(false) };
        match self.device.process(index, &mut slot.queue, memory) {
            Ok(processed) => {
                if processed.is_interrupt_needed {
                    self.raise(USED_BUFFER);
                }
                Ok(processed.is_more)
            }
            Err(error) => {
                self.be_out_of_order(&error);
                Err(error)
            }
        }
    }

    /// Has the driver know that the device's configuration has changed.
    pub fn note_changed_config(&mut self) {
        self.config_generation = self.config_generation.wrapping_add(1);
        if self.negotiation.is_active() {
            self.raise(CONFIG_CHANGE);
        }
    }

    pub(super) fn raise(&mut self, why: u32) {
        self.interrupt_status |= why;
        match self.interrupt.trigger() {
            Ok(()) => count(&self.metrics.interrupts),
            Err(_) => count(&self.metrics.failed_interrupts),
        }
    }
}
