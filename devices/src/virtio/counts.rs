//! What a device and its transport have done.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::block::{BlockCounts, BlockMetrics};
use super::mmio::{TransportCounts, TransportMetrics};
use super::rng::{RngCounts, RngMetrics};

/// The counters of a device, of one kind or another, which outlive it.
#[derive(Debug, Clone)]
pub enum DeviceMetrics {
    /// Those of a block device.
    Block(Arc<BlockMetrics>),
    /// Those of an entropy source.
    Rng(Arc<RngMetrics>),
}

/// The counters of a device at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum DeviceCounts {
    /// Those of a block device.
    Block(BlockCounts),
    /// Those of an entropy source.
    Rng(RngCounts),
}

impl DeviceMetrics {
    /// The counters now.
    pub fn counts(&self) -> DeviceCounts {
        match self {
            Self::Block(metrics) => DeviceCounts::Block(metrics.counts()),
            Self::Rng(metrics) => DeviceCounts::Rng(metrics.counts()),
        }
    }
}

/// A device's counters and its transport's, which outlive both.
#[derive(Debug, Clone)]
pub struct VirtioMetrics {
    /// The device's.
    pub device: DeviceMetrics,
    /// The transport's.
    pub transport: Arc<TransportMetrics>,
}

/// A device's counters and its transport's at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioCounts {
    /// The device's; in JSON they are beside `transport`, with the `kind` of device.
    #[serde(flatten)]
    pub device: DeviceCounts,
    /// The transport's.
    pub transport: TransportCounts,
}

impl VirtioMetrics {
    /// The counters now.
    pub fn counts(&self) -> VirtioCounts {
        VirtioCounts { device: self.device.counts(), transport: self.transport.counts() }
    }
}
