//! Which devices a machine has beside those that every one has.

use pagefold_devices::virtio::block::{OpenImageError, RawImage};

use super::DiskConfig;
use crate::builder::BuildError;
use crate::pc::layout::MAX_VIRTIO_DEVICES;

/// Which devices a PC has beside those that every one has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PcDevices {
    /// An entropy source, `/dev/hwrng` to Linux.
    pub rng: bool,
    /// Disks, in the order in which the guest finds them: `/dev/vda`, `/dev/vdb` and so on to Linux.
    pub disks: Vec<DiskConfig>,
}

impl PcDevices {
    /// Whether there can be a machine with them now. Its disks are opened, all at once, and closed again.
    ///
    /// # Errors
    ///
    /// When there are too many, or a disk cannot be used.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let (wanted, max) = (self.virtio_count(), MAX_VIRTIO_DEVICES);
        if wanted > max {
            return Err(BuildError::VirtioDevices { wanted, max });
        }
        let disks: Result<Vec<RawImage>, OpenImageError> =
            self.disks.iter().map(DiskConfig::open).collect();
        Ok(disks.map(drop)?)
    }

    /// How many disks there are.
    pub(super) fn disk_count(&self) -> u32 {
        // More than there are numbers are refused as too many, too.
        u32::try_from(self.disks.len()).unwrap_or(u32::MAX)
    }

    /// How many of them are behind virtio.
    pub(crate) fn virtio_count(&self) -> u32 {
        self.disk_count().saturating_add(self.rng.into())
    }

    /// How many queues these have.
    fn queue_count(&self) -> u32 {
        self.virtio_count()
    }

    /// Event descriptors that they take: one for each interrupt line, and one for each queue.
    pub(super) fn event_descriptors(&self) -> u32 {
        self.virtio_count().saturating_add(self.queue_count())
    }
}

impl DiskConfig {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// When it is no disk, or in use.
    pub(crate) fn open(&self) -> Result<RawImage, OpenImageError> {
        RawImage::open(&self.path, self.readonly)
    }
}
