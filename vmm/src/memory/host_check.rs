//! Whether the host can bear all VMs at once, should no page of theirs be shared.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::limits::Tree;
use crate::limits::memory::{Limit, MemoryError, MemoryRoom, own_bytes, rooms};

/// Why memory was not set aside for a VM; nothing is set aside.
#[derive(Debug, thiserror::Error)]
pub enum HostMemoryError {
    /// All VMs together could need more than there is.
    #[error(
        "the VMs could need {} MiB, of which {} MiB for the ones that this process has and {} MiB \
         for what it takes to run them, and {limit} leaves {} MiB: run fewer or smaller VMs, or \
         allow overcommitment and rely on folding",
        needed_bytes(reserved_bytes.saturating_add(*requested_bytes)) >> 20, reserved_bytes >> 20,
        overhead_bytes(reserved_bytes.saturating_add(*requested_bytes)) >> 20, available_bytes >> 20
    )]
    NotEnough {
        /// Bytes requested.
        requested_bytes: u64,
        /// Bytes already set aside for VMs of this process.
        reserved_bytes: u64,
        /// Bytes that this process could have resident.
        available_bytes: u64,
        /// What limits it.
        limit: Limit,
    },
    /// The kernel does not report how much there is.
    #[error(transparent)]
    Unknown(#[from] MemoryError),
}

/// The memory set aside for all VMs of this process, whatever host object they belong to.
#[derive(Debug, Clone)]
pub struct HostMemoryPool {
    reserved_bytes: Arc<Mutex<u64>>,
    overcommit: bool,
}

impl HostMemoryPool {
    /// The pool of this process; with `overcommit` this handle to it never refuses, but what it
    /// sets aside counts for all.
    pub fn of_process(overcommit: bool) -> Self {
        static OF_PROCESS: LazyLock<Arc<Mutex<u64>>> = LazyLock::new(Arc::default);
        Self { reserved_bytes: Arc::clone(&OF_PROCESS), overcommit }
    }

    /// Sets `bytes` aside until the reservation is dropped.
    ///
    /// # Errors
    ///
    /// When all VMs together, none of them sharing a page, could not be resident at once; nothing
    /// is set aside.
    pub fn reserve(&self, bytes: u64) -> Result<MemoryReservation, HostMemoryError> {
        let mut reserved = self.reserved_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        self.check(*reserved, bytes)?;
        *reserved = reserved.saturating_add(bytes);
        Ok(MemoryReservation { pool: self.clone(), bytes })
    }

    /// Whether `bytes` could be set aside now, without doing it: for a caller about to launch many
    /// VMs, who would rather launch none than half of them.
    ///
    /// # Errors
    ///
    /// As [`reserve`](Self::reserve).
    pub fn check_room_for(&self, bytes: u64) -> Result<(), HostMemoryError> {
        self.check(*self.reserved_bytes.lock().unwrap_or_else(PoisonError::into_inner), bytes)
    }

    fn check(&self, reserved_bytes: u64, requested_bytes: u64) -> Result<(), HostMemoryError> {
        if self.overcommit {
            return Ok(());
        }
        let tree = Tree::real();
        // What our guests have by now is gone from what is available, but it is theirs: it counts
        // among the bytes reserved. So does what folding has moved to a store.
        fits(&rooms(&tree)?, own_bytes(&tree)?, reserved_bytes, requested_bytes)
    }
}

/// What VMs with so much memory could take in all.
fn needed_bytes(memory_bytes: u64) -> u64 {
    memory_bytes.saturating_add(overhead_bytes(memory_bytes))
}

/// What it takes to run them, above all the kernel's page tables and ours: without it a control
/// group that is as large as its VMs would have one of them killed.
fn overhead_bytes(memory_bytes: u64) -> u64 {
    memory_bytes / 32 + (4 << 20)
}

/// Whether VMs that could need `reserved_bytes` and `requested_bytes` fit under each limit, `own_bytes`
/// of which the process has already.
fn fits(
    rooms: &[MemoryRoom],
    own_bytes: u64,
    reserved_bytes: u64,
    requested_bytes: u64,
) -> Result<(), HostMemoryError> {
    let needed_bytes = needed_bytes(reserved_bytes.saturating_add(requested_bytes));
    for room in rooms {
        let available_bytes = room.available_to(own_bytes);
        if needed_bytes > available_bytes {
            let limit = room.limit.clone();
            return Err(HostMemoryError::NotEnough {
                requested_bytes,
                reserved_bytes,
                available_bytes,
                limit,
            });
        }
    }
    Ok(())
}

/// Memory set aside for one VM; given back when it is dropped.
#[derive(Debug)]
pub struct MemoryReservation {
    pool: HostMemoryPool,
    bytes: u64,
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        let mut reserved = self.pool.reserved_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *reserved = reserved.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIB: u64 = 1 << 40;

    fn pool(overcommit: bool) -> HostMemoryPool {
        HostMemoryPool { reserved_bytes: Arc::default(), overcommit }
    }

    #[test]
    fn what_no_host_has_is_refused_and_nothing_is_set_aside() {
        let pool = pool(false);
        let error = pool.reserve(4096 * TIB).unwrap_err();
        assert!(matches!(error, HostMemoryError::NotEnough { reserved_bytes: 0, .. }), "{error}");
        assert_eq!(*pool.reserved_bytes.lock().unwrap(), 0);
        assert!(pool.check_room_for(u64::MAX).is_err());
        assert!(self::pool(true).reserve(u64::MAX).is_ok());
    }

    #[test]
    fn a_dropped_reservation_is_given_back() {
        let pool = pool(false);
        let first = pool.reserve(4096).unwrap();
        let second = pool.reserve(8192).unwrap();
        drop(first);
        assert_eq!(*pool.reserved_bytes.lock().unwrap(), 8192);
        drop(second);
        assert_eq!(*pool.reserved_bytes.lock().unwrap(), 0);
    }

    #[test]
    fn memory_of_several_hosts_is_counted_for_the_process() {
        let _held = HostMemoryPool::of_process(true).reserve(8192).unwrap();
        let error = HostMemoryPool::of_process(false).reserve(4096 * TIB).unwrap_err();
        let HostMemoryError::NotEnough { reserved_bytes, .. } = error else { panic!("{error}") };
        assert!(reserved_bytes >= 8192, "{reserved_bytes}");
    }

    #[test]
    fn saving_memory_leaves_the_room_that_there_was() {
        let rooms = |free_mib: u64| {
            [Limit::Host, Limit::ControlGroup("/group".into())].map(|limit| MemoryRoom {
                limit,
                max_bytes: needed_bytes(1000 << 20),
                free_bytes: needed_bytes(1000 << 20) - ((1000 - free_mib) << 20),
            })
        };
        // VMs of 600 MiB have all of it; then 300 are shared, in a store of 100; then 50 are
        // swapped.
        for (own, free) in [(600_u64, 400_u64), (300 + 100, 600), (250 + 50 + 100, 650)] {
            let fits = |requested: u64| fits(&rooms(free), own << 20, 600 << 20, requested << 20);
            assert!(fits(400).is_ok(), "{own} {free}");
            assert!(fits(401).is_err(), "{own} {free}");
        }
    }
}
