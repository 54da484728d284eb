//! Which devices a machine has beside those that every one has.

/// Which devices a PC has beside those that every one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PcDevices {
    /// An entropy source, `/dev/hwrng` to Linux.
    pub rng: bool,
}

impl PcDevices {
    /// How many of them are behind virtio.
    pub(crate) fn virtio_count(self) -> u32 {
        self.rng.into()
    }

    /// How many queues these have.
    fn queue_count(self) -> u32 {
        self.rng.into()
    }

    /// Event descriptors that they take: one for each interrupt line, and one for each queue.
    pub(super) fn event_descriptors(self) -> u32 {
        self.virtio_count() + self.queue_count()
    }
}
