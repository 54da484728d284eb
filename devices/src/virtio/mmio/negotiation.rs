//! The driver's way from reset to ready.
//!
//! Source: virtio 1.2, sections 2.1, 2.2 and 3.1.

use virtio_bindings::bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_queue::QueueT;
use vm_memory::{GuestAddress, Permissions};

use super::metrics::count;
use super::registers::CONFIG_CHANGE;
use super::transport::{MmioTransport, QueueSlot};
use crate::DeviceMemory;

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;

/// What the transport offers for every device.
const OFFERED: u64 = VERSION_1 | EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// What a driver writes to the status register.
const DRIVERS_BITS: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE
    | VIRTIO_CONFIG_S_DRIVER
    | VIRTIO_CONFIG_S_FEATURES_OK
    | VIRTIO_CONFIG_S_DRIVER_OK
    | VIRTIO_CONFIG_S_FAILED;

/// Bytes of the rings of a queue: so many, and so many more for each descriptor.
const RING_BYTES: [(u64, u64); 3] = [(0, 16), (6, 2), (6, 8)];

/// How far a driver has come, and what it has agreed on.
#[derive(Debug)]
pub(super) struct Negotiation {
    offered: u64,
    accepted: u64,
    status: u32,
    /// Which 32 bits of the offered and of the accepted features the driver reads or writes.
    pub(super) offered_sel: u32,
    pub(super) accepted_sel: u32,
}

impl Negotiation {
    /// That of a device that offers `features`, and has been reset.
    pub(super) fn new(features: u64) -> Self {
        let offered = features | OFFERED;
        Self { offered, accepted: 0, status: 0, offered_sel: 0, accepted_sel: 0 }
    }

    pub(super) fn status(&self) -> u32 {
        self.status
    }

    fn has(&self, bits: u32) -> bool {
        self.status & bits == bits
    }

    /// Whether there is a driver that may use the device's configuration.
    pub(super) fn has_driver(&self) -> bool {
        self.has(VIRTIO_CONFIG_S_DRIVER) && !self.has(VIRTIO_CONFIG_S_FAILED)
    }

    /// Whether the driver may set its queues up: it has agreed on features, and is not ready.
    pub(super) fn may_set_up_queues(&self) -> bool {
        self.has(VIRTIO_CONFIG_S_FEATURES_OK) && !self.has(VIRTIO_CONFIG_S_DRIVER_OK)
    }

    /// Whether the device is to do what its driver requests.
    pub(super) fn is_active(&self) -> bool {
        self.has(VIRTIO_CONFIG_S_DRIVER_OK)
            && self.status & (VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED) == 0
    }

    pub(super) fn offered_word(&self) -> u32 {
        word(self.offered, self.offered_sel)
    }

    /// Accepts the selected 32 bits of features. Returns whether the driver may do so now.
    pub(super) fn accept_word(&mut self, value: u32) -> bool {
        let may = self.has(VIRTIO_CONFIG_S_DRIVER) && !self.has(VIRTIO_CONFIG_S_FEATURES_OK);
        // There are 64 features; of those beyond, none can be accepted.
        let shift = match self.accepted_sel {
            0 => 0,
            1 => 32,
            _ => return may && value == 0,
        };
        if may {
            self.accepted =
                self.accepted & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift;
        }
        may
    }

    /// Whether the device does with what the driver has accepted.
    fn is_agreed(&self) -> bool {
        self.accepted & !self.offered == 0 && self.accepted & VERSION_1 != 0
    }
}

fn word(features: u64, sel: u32) -> u32 {
    let bytes = features.to_le_bytes();
    let [low, high] = [0, 4].map(|at| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    match sel {
        0 => u32::from_le_bytes(low),
        1 => u32::from_le_bytes(high),
        _ => 0,
    }
}

impl<M: DeviceMemory> MmioTransport<M> {
    /// Takes what the driver writes to the status register: one step further at a time, or 0, which resets the device.
    /// Returns whether it may.
    pub(super) fn write_status(&mut self, value: u32) -> bool {
        let before = self.negotiation.status;
        if value == 0 {
            self.reset();
            return true;
        }
        let added = value & !before;
        if value & before != before & DRIVERS_BITS || added & !DRIVERS_BITS != 0 {
            return false;
        }
        if added & VIRTIO_CONFIG_S_FEATURES_OK != 0
            && !(self.negotiation.has(VIRTIO_CONFIG_S_DRIVER) && self.negotiation.is_agreed())
        {
            // The driver reads that the bit is not there.
            self.negotiation.status |=
                added & !(VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
            return false;
        }
        if added & VIRTIO_CONFIG_S_DRIVER_OK != 0
            && !self.negotiation.has(VIRTIO_CONFIG_S_FEATURES_OK)
        {
            return false;
        }
        self.negotiation.status |= added;
        if added & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            self.activate();
        }
        true
    }

    /// Has the selected queue be ready, with the rings that the driver has named, or not any more. Returns whether the
    /// driver may.
    pub(super) fn write_ready(&mut self, value: u32) -> bool {
        let may = self.negotiation.may_set_up_queues() && value <= 1;
        let Some(slot) = self.selected_mut().filter(|_| may) else { return false };
        if value == 0 {
            slot.queue.set_ready(false);
            return true;
        }
        let [descriptors, available, used] = slot.rings.map(GuestAddress);
        let is_aligned = slot.queue.try_set_desc_table_address(descriptors).is_ok()
            && slot.queue.try_set_avail_ring_address(available).is_ok()
            && slot.queue.try_set_used_ring_address(used).is_ok();
        slot.queue.set_ready(is_aligned);
        is_aligned
    }

    fn activate(&mut self) {
        let accepted = self.negotiation.accepted;
        for slot in &mut self.queues {
            slot.queue.set_event_idx(accepted & EVENT_IDX != 0);
        }
        let Some(memory) = &self.memory else { return };
        let lies_in_memory = |slot: &QueueSlot| {
            let size = u64::from(slot.queue.size());
            slot.rings.iter().zip(RING_BYTES).all(|(&address, (fixed, each))| {
                let bytes = usize::try_from(fixed + each * size).unwrap_or(usize::MAX);
                memory.check_range(GuestAddress(address), bytes, Permissions::ReadWrite)
            })
        };
        if self.queues.iter().filter(|slot| slot.queue.ready()).all(lies_in_memory) {
            self.device.activate(accepted);
        } else {
            self.be_out_of_order(&"a queue does not lie in memory");
        }
    }

    /// Has the driver know that the device does nothing more until it is reset.
    pub(super) fn be_out_of_order(&mut self, why: &dyn std::fmt::Display) {
        count(&self.metrics.queue_errors);
        let errors = self.metrics.counts().queue_errors;
        // A driver can have that happen as often as it likes.
        let level = if errors.is_power_of_two() { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "virtio device of type {}: {why}", self.device.device_type());
        self.negotiation.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        self.raise(CONFIG_CHANGE);
    }

    fn reset(&mut self) {
        count(&self.metrics.resets);
        self.device.reset();
        self.awaited = self.device.in_flight();
        for slot in &mut self.queues {
            slot.queue.reset();
            slot.rings = [0; 3];
        }
        self.negotiation = Negotiation::new(self.device.features());
        self.interrupt_status = 0;
    }
}
