//! The registers, as the guest sees them.

use std::sync::Arc;

use virtio_queue::{Queue, QueueT};

use super::metrics::{TransportMetrics, count};
use super::negotiation::Negotiation;
use super::registers as reg;
use super::shared::wait;
use crate::virtio::{InFlight, VirtioDevice};
use crate::{BusDevice, DeviceMemory, Effect, Interrupt, NoInterrupt};

/// A queue, and where its driver has put its rings so far.
#[derive(Debug)]
pub(super) struct QueueSlot {
    pub(super) queue: Queue,
    /// Addresses of descriptor table, available ring and used ring.
    pub(super) rings: [u64; 3],
}

/// A device and its registers.
///
/// On a bus it takes [`REGISTER_BYTES`](super::REGISTER_BYTES). What a driver may not do is refused and counted: it reads all ones, or nothing
/// comes of it.
pub struct MmioTransport<M: DeviceMemory> {
    pub(super) device: Box<dyn VirtioDevice<M>>,
    /// Whether nothing is to be carried out for now.
    pub(super) is_paused: bool,
    /// `None` when the machine is gone.
    pub(super) memory: Option<M>,
    pub(super) interrupt: Box<dyn Interrupt>,
    pub(super) metrics: Arc<TransportMetrics>,
    pub(super) queues: Vec<QueueSlot>,
    pub(super) negotiation: Negotiation,
    pub(super) interrupt_status: u32,
    pub(super) config_generation: u32,
    /// What the access that is being made has to wait for, once it is made.
    pub(super) awaited: Option<Arc<dyn InFlight>>,
    queue_sel: u32,
}

impl<M: DeviceMemory> MmioTransport<M> {
    /// The registers of `device`, which reaches `memory` and raises `interrupt`.
    ///
    /// # Panics
    ///
    /// When the device has a queue of a size that there is not: a fault of its own table.
    pub fn new(device: Box<dyn VirtioDevice<M>>, memory: M, interrupt: Box<dyn Interrupt>) -> Self {
        let new_queue = |&size| Queue::new(size).expect("a power of 2 up to 32768");
        let slot = |size| QueueSlot { queue: new_queue(size), rings: [0; 3] };
        let queues = device.queue_sizes().iter().map(slot).collect();
        let negotiation = Negotiation::new(device.features());
        Self {
            device,
            memory: Some(memory),
            is_paused: false,
            interrupt,
            metrics: Arc::default(),
            queues,
            negotiation,
            interrupt_status: 0,
            config_generation: 0,
            awaited: None,
            queue_sel: 0,
        }
    }

    /// What it has done so far, and goes on doing.
    pub fn metrics(&self) -> Arc<TransportMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Has the device carry nothing out until it is to go on: when this returns it neither reads memory nor writes to
    /// it. What is announced meanwhile is lost, so each queue is to be [processed](Self::process_queue) when it goes on.
    pub fn set_paused(&mut self, is_paused: bool) {
        wait(self.begin_pause(is_paused));
    }

    /// Has the device do nothing any more, and drops its memory and its interrupt: the machine is gone.
    pub fn end(&mut self) {
        wait(self.begin_end());
    }

    /// Pauses it or has it go on. Returns what is to be waited for.
    pub(super) fn begin_pause(&mut self, is_paused: bool) -> Option<Arc<dyn InFlight>> {
        self.is_paused = is_paused;
        self.device.set_paused(is_paused);
        self.device.in_flight().filter(|_| is_paused)
    }

    /// Ends it. Returns what is to be waited for.
    pub(super) fn begin_end(&mut self) -> Option<Arc<dyn InFlight>> {
        self.memory = None;
        self.interrupt = Box::new(NoInterrupt);
        self.device.end();
        self.device.in_flight()
    }

    /// Makes a write access. Returns what the vCPU has to wait for before it goes on.
    pub(super) fn begin_write(&mut self, offset: u64, data: &[u8]) -> Option<Arc<dyn InFlight>> {
        let is_done = if let Some(offset) = offset.checked_sub(reg::CONFIG) {
            let has_driver = self.negotiation.has_driver();
            if has_driver {
                self.device.write_config(offset, data);
            }
            has_driver
        } else {
            let value = data.try_into().map(u32::from_le_bytes);
            value.is_ok_and(|value| self.write_register(offset, value))
        };
        if !is_done {
            count(&self.metrics.refused_accesses);
        }
        self.awaited.take()
    }

    /// How many queues the device has.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    fn selected(&self) -> Option<&QueueSlot> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    pub(super) fn selected_mut(&mut self) -> Option<&mut QueueSlot> {
        self.queues.get_mut(usize::try_from(self.queue_sel).ok()?)
    }

    /// The selected queue, if its driver may set it up now.
    fn set_up(&mut self) -> Option<&mut QueueSlot> {
        let may = self.negotiation.may_set_up_queues();
        self.selected_mut().filter(|slot| may && !slot.queue.ready())
    }

    fn read_register(&self, offset: u64) -> Option<u32> {
        Some(match offset {
            reg::MAGIC => reg::MAGIC_VALUE,
            reg::VERSION => reg::VERSION_VALUE,
            reg::DEVICE_ID => self.device.device_type(),
            reg::VENDOR_ID => reg::VENDOR,
            reg::DEVICE_FEATURES => self.negotiation.offered_word(),
            reg::QUEUE_NUM_MAX => self.selected().map_or(0, |slot| slot.queue.max_size().into()),
            reg::QUEUE_READY => self.selected().map_or(0, |slot| slot.queue.ready().into()),
            reg::INTERRUPT_STATUS => self.interrupt_status,
            reg::STATUS => self.negotiation.status(),
            reg::CONFIG_GENERATION => self.config_generation,
            _ if reg::SHARED_MEMORY.contains(&offset) => u32::MAX,
            _ => return None,
        })
    }

    /// Returns whether a driver may write that there now.
    fn write_register(&mut self, offset: u64, value: u32) -> bool {
        match offset {
            reg::DEVICE_FEATURES_SEL => self.negotiation.offered_sel = value,
            reg::DRIVER_FEATURES_SEL => self.negotiation.accepted_sel = value,
            reg::DRIVER_FEATURES => return self.negotiation.accept_word(value),
            reg::QUEUE_SEL => self.queue_sel = value,
            reg::QUEUE_NOTIFY => return self.notify(value),
            reg::INTERRUPT_ACK => self.interrupt_status &= !value,
            reg::STATUS => return self.write_status(value),
            reg::QUEUE_READY => return self.write_ready(value),
            reg::QUEUE_NUM => {
                let size = u16::try_from(value).ok();
                let slot = self.set_up().zip(size);
                return slot.is_some_and(|(slot, size)| slot.queue.try_set_size(size).is_ok());
            }
            reg::QUEUE_DESC_LOW => return self.write_ring(0, 0, value),
            reg::QUEUE_DESC_HIGH => return self.write_ring(0, 32, value),
            reg::QUEUE_DRIVER_LOW => return self.write_ring(1, 0, value),
            reg::QUEUE_DRIVER_HIGH => return self.write_ring(1, 32, value),
            reg::QUEUE_DEVICE_LOW => return self.write_ring(2, 0, value),
            reg::QUEUE_DEVICE_HIGH => return self.write_ring(2, 32, value),
            _ => return false,
        }
        true
    }

    /// Sets the half from bit `shift` on of the address of a ring.
    fn write_ring(&mut self, ring: usize, shift: u32, value: u32) -> bool {
        let Some(slot) = self.set_up() else { return false };
        let address = &mut slot.rings[ring];
        *address = *address & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift;
        true
    }

    /// A driver that waits for no event has its requests carried out by the vCPU that announces them.
    fn notify(&mut self, queue: u32) -> bool {
        usize::try_from(queue).is_ok_and(|index| self.process_queue(index).is_ok())
    }
}

impl<M: DeviceMemory> BusDevice for MmioTransport<M> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(reg::CONFIG) {
            self.device.read_config(offset, data);
            return;
        }
        // Registers have 32 bits, and are read as a whole.
        let value = if data.len() == size_of::<u32>() { self.read_register(offset) } else { None };
        match value {
            Some(value) => data.copy_from_slice(&value.to_le_bytes()),
            None => count(&self.metrics.refused_accesses),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        wait(self.begin_write(offset, data));
        Effect::Continue
    }
}
