//! What a transport has done.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Counters of a transport, shared between it and whoever shows them.
#[derive(Debug, Default)]
pub struct TransportMetrics {
    pub(super) notifications: AtomicU64,
    pub(super) interrupts: AtomicU64,
    pub(super) failed_interrupts: AtomicU64,
    pub(super) resets: AtomicU64,
    pub(super) queue_errors: AtomicU64,
    pub(super) refused_accesses: AtomicU64,
}

/// The counters at one moment, since the device was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TransportCounts {
    /// Times that a queue was looked into: its driver has announced requests, or there were more than a turn takes.
    pub notifications: u64,
    /// Interrupts that were raised.
    pub interrupts: u64,
    /// Interrupts that could not be raised.
    pub failed_interrupts: u64,
    /// Times that the driver has reset the device.
    pub resets: u64,
    /// Times that the device was out of order, as a queue made no sense.
    pub queue_errors: u64,
    /// Accesses that no driver makes, which were refused.
    pub refused_accesses: u64,
}

impl TransportMetrics {
    /// The counters now.
    pub fn counts(&self) -> TransportCounts {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TransportCounts {
            notifications: now(&self.notifications),
            interrupts: now(&self.interrupts),
            failed_interrupts: now(&self.failed_interrupts),
            resets: now(&self.resets),
            queue_errors: now(&self.queue_errors),
            refused_accesses: now(&self.refused_accesses),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
