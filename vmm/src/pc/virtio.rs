//! Virtio devices: where they are, and who carries out what their drivers request.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use kvm_ioctls::{IoEventAddress, VmFd};
use pagefold_dedup::VmId;
use pagefold_devices::virtio::block::Block;
use pagefold_devices::virtio::mmio::NOTIFY_OFFSET;
use pagefold_devices::virtio::rng::Rng;
use pagefold_devices::virtio::{
    DeviceMetrics, MmioTransport, QueueWaker, SharedTransport, VirtioDevice, VirtioMetrics,
};
use pagefold_devices::{MmioBus, WorkerPool};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::IrqLine;
use super::layout;
use crate::builder::{BuildError, refused};
use crate::config::PcDevices;
use crate::event_loop::{QueueEvent, QueueEvents, RegisteredQueues};
use crate::memory::GuestMemory;

type Transport = SharedTransport<GuestMemory>;

/// The virtio devices of a machine. When this is dropped, which waits for their requests in flight, they do nothing any
/// more, and keep neither memory nor files.
pub(crate) struct VirtioDevices {
    /// `None` if they have no queues.
    queues: Option<RegisteredQueues>,
    transports: Vec<Transport>,
    /// By which the loop is notified of requests.
    events: Vec<Arc<EventFd>>,
}

/// A device's counters, and what the device is called in its VM's status.
pub(crate) type NamedMetrics = (String, VirtioMetrics);

/// What devices need of the host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeviceHost<'host> {
    /// Processes their queues.
    pub(crate) events: &'host QueueEvents,
    /// Carry out what the event loop must not wait for.
    pub(crate) workers: &'host Arc<WorkerPool>,
}

/// A device that is to be on the bus.
struct NewDevice {
    name: String,
    metrics: DeviceMetrics,
    device: Box<dyn VirtioDevice<GuestMemory>>,
    /// Of each of its queues.
    events: Vec<Arc<EventFd>>,
}

impl VirtioDevices {
    /// Those of a machine that has none.
    pub(crate) fn none() -> Self {
        Self { queues: None, transports: Vec::new(), events: Vec::new() }
    }

    /// Makes the `wanted` devices of a VM, on `bus`, in `memory`; `host` carries out what their drivers request. Returns
    /// them with the counters of each.
    ///
    /// # Errors
    ///
    /// When KVM refuses something, a disk cannot be used, or the bus has something else where one of them belongs; some
    /// may be on it.
    pub(crate) fn new(
        wanted: &PcDevices,
        (vm, fd): (VmId, &VmFd),
        memory: &GuestMemory,
        bus: &mut MmioBus,
        host: DeviceHost<'_>,
    ) -> Result<(Self, Vec<NamedMetrics>), BuildError> {
        let mut made = Self::none();
        let (mut queues, mut all_metrics) = (Vec::new(), Vec::new());
        for (number, new) in (0..).zip(devices(wanted, host.workers)?) {
            let line = IrqLine::new(fd, layout::VIRTIO_FIRST_IRQ + number);
            let line = line.map_err(refused("raise an interrupt"))?;
            let transport = MmioTransport::new(new.device, memory.clone(), Box::new(line));
            let metrics = VirtioMetrics { device: new.metrics, transport: transport.metrics() };
            all_metrics.push((new.name.clone(), metrics));
            let transport = SharedTransport::new(transport);
            made.transports.push(transport.clone());
            let registers = layout::virtio_registers(number);
            let notify_at = registers.start() + NOTIFY_OFFSET;
            for (index, event) in new.events.into_iter().enumerate() {
                made.events.push(Arc::clone(&event));
                queues.push(queue_event(fd, notify_at, index, event, &transport)?);
            }
            bus.insert(&new.name, registers, Arc::new(Mutex::new(transport)))?;
        }
        if !queues.is_empty() {
            made.queues = Some(host.events.register(vm, queues));
        }
        Ok((made, all_metrics))
    }

    /// Has them neither read memory nor write to it until they are to go on, which they do where they were. Waits for
    /// their requests in flight.
    pub(crate) fn set_paused(&self, is_paused: bool) {
        for transport in &self.transports {
            transport.set_paused(is_paused);
        }
        for event in self.events.iter().filter(|_| !is_paused) {
            // Of what was announced meanwhile nothing came.
            if let Err(error) = event.write(1) {
                log::error!("cannot go on with the requests of a device: {error}");
            }
        }
    }
}

/// The devices themselves, in the order of their addresses.
fn devices(wanted: &PcDevices, workers: &Arc<WorkerPool>) -> Result<Vec<NewDevice>, BuildError> {
    let mut devices = Vec::new();
    for (number, disk) in wanted.disks.iter().enumerate() {
        workers.ensure_thread().map_err(BuildError::DiskThread)?;
        let event = new_event()?;
        let waker = Arc::new(EventWaker(Arc::clone(&event)));
        let block = Block::new(Box::new(disk.open()?), workers, waker);
        devices.push(NewDevice {
            name: format!("disk{number}"),
            metrics: DeviceMetrics::Block(block.metrics()),
            device: Box::new(block),
            events: vec![event],
        });
    }
    if wanted.rng {
        let rng = Rng::default();
        devices.push(NewDevice {
            name: "rng".to_owned(),
            metrics: DeviceMetrics::Rng(rng.metrics()),
            device: Box::new(rng),
            events: vec![new_event()?],
        });
    }
    Ok(devices)
}

fn new_event() -> Result<Arc<EventFd>, BuildError> {
    let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
    event.map(Arc::new).map_err(refused("make an event"))
}

/// Has the loop process a queue as if its driver had announced requests.
struct EventWaker(Arc<EventFd>);

impl QueueWaker for EventWaker {
    fn wake(&self) {
        if let Err(error) = self.0.write(1) {
            // A counter that is full wakes the loop, too.
            let level = match error.kind() {
                io::ErrorKind::WouldBlock => log::Level::Debug,
                _ => log::Level::Error,
            };
            log::log!(level, "cannot hand requests of a device back: {error}");
        }
    }
}

/// Has KVM raise `event` when the number of queue `index` is written to `notify_at`.
fn queue_event(
    fd: &VmFd,
    notify_at: u64,
    index: usize,
    event: Arc<EventFd>,
    transport: &Transport,
) -> Result<QueueEvent, BuildError> {
    // There are fewer queues than numbers.
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    fd.register_ioevent(&event, &IoEventAddress::Mmio(notify_at), number)
        .map_err(refused("raise events for a device"))?;
    let transport = transport.clone();
    // What fails puts the device out of order, which is logged and counted.
    let process = move || transport.process_queue(index).unwrap_or(false);
    Ok(QueueEvent { event, process: Box::new(process) })
}

impl Drop for VirtioDevices {
    fn drop(&mut self) {
        self.queues = None;
        for transport in &self.transports {
            transport.end();
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
