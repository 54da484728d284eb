//! A transport that vCPUs, the event loop and the VM's owner use, each when it likes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::transport::MmioTransport;
use crate::virtio::{InFlight, QueueError};
use crate::{BusDevice, DeviceMemory, Effect};

/// A transport with a lock that nobody holds who waits for a device: what waits for requests in flight, as a driver
/// that resets its device does, keeps nobody from processing a queue. Clones are the same transport.
pub struct SharedTransport<M: DeviceMemory> {
    transport: Arc<Mutex<MmioTransport<M>>>,
}

impl<M: DeviceMemory> SharedTransport<M> {
    /// Shares a transport.
    pub fn new(transport: MmioTransport<M>) -> Self {
        Self { transport: Arc::new(Mutex::new(transport)) }
    }

    fn lock(&self) -> MutexGuard<'_, MmioTransport<M>> {
        self.transport.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`MmioTransport::process_queue`]. Does not wait for requests.
    ///
    /// # Errors
    ///
    /// When there is no such queue, or it makes no sense.
    pub fn process_queue(&self, index: usize) -> Result<bool, QueueError> {
        self.lock().process_queue(index)
    }

    /// See [`MmioTransport::set_paused`]. Waits for requests in flight.
    pub fn set_paused(&self, is_paused: bool) {
        let in_flight = self.lock().begin_pause(is_paused);
        wait(in_flight);
    }

    /// See [`MmioTransport::end`]. Waits for requests in flight.
    pub fn end(&self) {
        let in_flight = self.lock().begin_end();
        wait(in_flight);
    }
}

pub(super) fn wait(in_flight: Option<Arc<dyn InFlight>>) {
    if let Some(in_flight) = in_flight {
        in_flight.wait();
    }
}

impl<M: DeviceMemory> Clone for SharedTransport<M> {
    fn clone(&self) -> Self {
        Self { transport: Arc::clone(&self.transport) }
    }
}

/// On a bus, whose own lock keeps other vCPUs from the registers until an access is done.
impl<M: DeviceMemory> BusDevice for SharedTransport<M> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.lock().read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let in_flight = self.lock().begin_write(offset, data);
        wait(in_flight);
        Effect::Continue
    }
}
