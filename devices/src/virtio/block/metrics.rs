//! What a block device has done.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Counters of a block device, shared between it and whoever shows them.
#[derive(Debug, Default)]
pub struct BlockMetrics {
    pub(super) reads: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) discards: AtomicU64,
    pub(super) zeroes: AtomicU64,
    pub(super) read_bytes: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) failed_requests: AtomicU64,
    pub(super) refused_requests: AtomicU64,
}

/// The counters at one moment, since the device was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BlockCounts {
    /// Reads that were carried out.
    pub reads: u64,
    /// Writes that were carried out.
    pub writes: u64,
    /// Flushes that were carried out.
    pub flushes: u64,
    /// Discards that were carried out.
    pub discards: u64,
    /// Requests for zeroes that were carried out.
    pub zeroes: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes that were written, those of requests for zeroes not among them.
    pub written_bytes: u64,
    /// Requests that the host could not carry out: an I/O error.
    pub failed_requests: u64,
    /// Requests that made no sense, or that the device does not know.
    pub refused_requests: u64,
}

impl BlockMetrics {
    /// The counters now.
    pub fn counts(&self) -> BlockCounts {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BlockCounts {
            reads: now(&self.reads),
            writes: now(&self.writes),
            flushes: now(&self.flushes),
            discards: now(&self.discards),
            zeroes: now(&self.zeroes),
            read_bytes: now(&self.read_bytes),
            written_bytes: now(&self.written_bytes),
            failed_requests: now(&self.failed_requests),
            refused_requests: now(&self.refused_requests),
        }
    }
}

pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
