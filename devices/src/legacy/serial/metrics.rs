//! What a serial port has done.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use vm_superio::serial::SerialEvents;

/// Counters of a serial port, shared between it and whoever shows them.
#[derive(Debug, Default)]
pub struct SerialMetrics {
    sent: AtomicU64,
    received: AtomicU64,
    read: AtomicU64,
    failed_interrupts: AtomicU64,
}

/// The counters at one moment, since the port was made or restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SerialCounts {
    /// Bytes that the guest has sent.
    pub sent_bytes: u64,
    /// Bytes that came in for the guest.
    pub received_bytes: u64,
    /// Times that the guest has read the receiver, empty or not.
    pub reads: u64,
    /// Interrupts that could not be raised.
    pub failed_interrupts: u64,
}

impl SerialMetrics {
    /// The counters now.
    pub fn counts(&self) -> SerialCounts {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SerialCounts {
            sent_bytes: now(&self.sent),
            received_bytes: now(&self.received),
            reads: now(&self.read),
            failed_interrupts: now(&self.failed_interrupts),
        }
    }

    pub(super) fn count_received(&self, count: usize) {
        self.received.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn count_failed_interrupt(&self) {
        self.failed_interrupts.fetch_add(1, Ordering::Relaxed);
    }
}

impl SerialEvents for SerialMetrics {
    fn buffer_read(&self) {
        self.read.fetch_add(1, Ordering::Relaxed);
    }

    fn out_byte(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Never: the sink takes every byte.
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {}
}
