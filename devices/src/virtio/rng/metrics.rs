//! What an entropy source has done.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Counters of an entropy source, shared between it and whoever shows them.
#[derive(Debug, Default)]
pub struct RngMetrics {
    requests: AtomicU64,
    failed_requests: AtomicU64,
    bytes: AtomicU64,
}

/// The counters at one moment, since the device was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RngCounts {
    /// Requests that were carried out.
    pub requests: u64,
    /// Requests that made no sense, or that the host had no random bytes for.
    pub failed_requests: u64,
    /// Random bytes that were handed to the guest.
    pub bytes: u64,
}

impl RngMetrics {
    /// The counters now.
    pub fn counts(&self) -> RngCounts {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RngCounts {
            requests: now(&self.requests),
            failed_requests: now(&self.failed_requests),
            bytes: now(&self.bytes),
        }
    }

    pub(super) fn count_request(&self, bytes: u32) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes.into(), Ordering::Relaxed);
    }

    pub(super) fn count_failed(&self) {
        self.failed_requests.fetch_add(1, Ordering::Relaxed);
    }
}
