//! Virtio devices: where they are, and who carries out what their drivers request.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_ioctls::{IoEventAddress, VmFd};
use pagefold_dedup::VmId;
use pagefold_devices::MmioBus;
use pagefold_devices::virtio::mmio::NOTIFY_OFFSET;
use pagefold_devices::virtio::rng::Rng;
use pagefold_devices::virtio::{MmioTransport, VirtioDevice};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::IrqLine;
use super::layout;
use crate::builder::{BuildError, refused};
use crate::config::PcDevices;
use crate::event_loop::{QueueEvent, QueueEvents, RegisteredQueues};
use crate::memory::GuestMemory;

type Transport = Arc<Mutex<MmioTransport<GuestMemory>>>;

/// The virtio devices of a machine. When this is dropped, they do nothing any more, and keep no memory.
pub(crate) struct VirtioDevices {
    /// `None` if they have no queues.
    queues: Option<RegisteredQueues>,
    transports: Vec<Transport>,
    /// By which the loop is notified of requests.
    events: Vec<Arc<EventFd>>,
}

impl VirtioDevices {
    /// Those of a machine that has none.
    pub(crate) fn none() -> Self {
        Self { queues: None, transports: Vec::new(), events: Vec::new() }
    }

    /// Makes the `wanted` devices of a VM, on `bus`, in `memory`; `events` carries out what their drivers request.
    ///
    /// # Errors
    ///
    /// When KVM refuses something, or the bus has something else where one of them belongs; some may be on it.
    pub(crate) fn new(
        wanted: PcDevices,
        (vm, fd): (VmId, &VmFd),
        memory: &GuestMemory,
        bus: &mut MmioBus,
        events: &QueueEvents,
    ) -> Result<Self, BuildError> {
        let mut devices: Vec<(&str, Box<dyn VirtioDevice<GuestMemory>>)> = Vec::new();
        if wanted.rng {
            devices.push(("entropy source", Box::new(Rng::default())));
        }
        let mut made = Self::none();
        let mut queues = Vec::new();
        for (number, (name, device)) in (0..layout::MAX_VIRTIO_DEVICES).zip(devices) {
            let line = IrqLine::new(fd, layout::VIRTIO_FIRST_IRQ + number);
            let line = line.map_err(refused("raise an interrupt"))?;
            let transport = MmioTransport::new(device, memory.clone(), Box::new(line));
            let registers = layout::virtio_registers(number);
            let notify_at = registers.start() + NOTIFY_OFFSET;
            let queue_count = transport.queue_count();
            let transport = Arc::new(Mutex::new(transport));
            made.transports.push(Arc::clone(&transport));
            for index in 0..queue_count {
                let queue = queue_event(fd, notify_at, index, &transport)?;
                made.events.push(Arc::clone(&queue.event));
                queues.push(queue);
            }
            bus.insert(name, registers, transport)?;
        }
        if !queues.is_empty() {
            made.queues = Some(events.register(vm, queues));
        }
        Ok(made)
    }

    /// Has them neither read memory nor write to it until they are to go on, which they do where they were.
    pub(crate) fn set_paused(&self, is_paused: bool) {
        for transport in &self.transports {
            transport.lock().unwrap_or_else(PoisonError::into_inner).set_paused(is_paused);
        }
        for event in self.events.iter().filter(|_| !is_paused) {
            // Of what was announced meanwhile nothing came.
            if let Err(error) = event.write(1) {
                log::error!("cannot go on with the requests of a device: {error}");
            }
        }
    }
}

/// Has KVM raise an event for queue `index` when its number is written to `notify_at`.
fn queue_event(
    fd: &VmFd,
    notify_at: u64,
    index: usize,
    transport: &Transport,
) -> Result<QueueEvent, BuildError> {
    let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(refused("make an event"))?;
    // There are fewer queues than numbers.
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    fd.register_ioevent(&event, &IoEventAddress::Mmio(notify_at), number)
        .map_err(refused("raise events for a device"))?;
    let transport = Arc::clone(transport);
    let process = move || {
        let mut transport = transport.lock().unwrap_or_else(PoisonError::into_inner);
        // What fails puts the device out of order, which is logged and counted.
        transport.process_queue(index).unwrap_or(false)
    };
    Ok(QueueEvent { event: Arc::new(event), process: Box::new(process) })
}

impl Drop for VirtioDevices {
    fn drop(&mut self) {
        self.queues = None;
        for transport in &self.transports {
            transport.lock().unwrap_or_else(PoisonError::into_inner).end();
        }
    }
}

impl fmt::Debug for VirtioDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioDevices")
            .field("count", &self.transports.len())
            .finish_non_exhaustive()
    }
}
