//! Whether the host can bear all VMs at once, should no page of theirs be shared.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Why memory was not set aside for a VM; nothing is set aside.
#[derive(Debug, thiserror::Error)]
pub enum HostMemoryError {
    /// All VMs together could need more than there is.
    #[error(
        "the VMs could need {} MiB, of which {} MiB for the ones there are, and {limit} leaves {} \
         MiB: run fewer or smaller VMs, or allow overcommitment and rely on folding",
        (reserved_bytes + asked_bytes) >> 20, reserved_bytes >> 20, available_bytes >> 20
    )]
    NotEnough {
        /// Bytes asked for.
        asked_bytes: u64,
        /// Bytes already set aside for VMs of this process.
        reserved_bytes: u64,
        /// Bytes that this process could have resident.
        available_bytes: u64,
        /// What limits it.
        limit: Limit,
    },
    /// The kernel does not say how much there is.
    #[error("cannot read {} to see whether the host has enough memory", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read, or is not understood.
        #[source]
        source: io::Error,
    },
}

/// What limits the memory of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// The host's available memory.
    Host,
    /// `memory.max` of a control group.
    ControlGroup(PathBuf),
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => f.write_str("the host"),
            Self::ControlGroup(path) => write!(f, "the control group {}", path.display()),
        }
    }
}

/// The memory set aside for all VMs of one host object.
#[derive(Debug, Clone)]
pub struct HostMemoryPool {
    reserved_bytes: Arc<Mutex<u64>>,
    overcommit: bool,
}

impl HostMemoryPool {
    /// A pool with nothing set aside; with `overcommit` it never refuses.
    pub fn new(overcommit: bool) -> Self {
        Self { reserved_bytes: Arc::default(), overcommit }
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

    fn check(&self, reserved_bytes: u64, asked_bytes: u64) -> Result<(), HostMemoryError> {
        if self.overcommit {
            return Ok(());
        }
        // What our guests have resident by now is gone from what is available, but it is theirs:
        // it counts among the bytes reserved. Only anonymous memory does, since a page of a store
        // is resident once and would be counted in each VM that maps it.
        let own_bytes = field_kib(Path::new("/proc/self/status"), "RssAnon:")?;
        for (limit, free_bytes) in limits(Path::new("/"))? {
            let available_bytes = free_bytes.saturating_add(own_bytes);
            if reserved_bytes.saturating_add(asked_bytes) > available_bytes {
                return Err(HostMemoryError::NotEnough {
                    asked_bytes,
                    reserved_bytes,
                    available_bytes,
                    limit,
                });
            }
        }
        Ok(())
    }
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

/// Bytes free under each limit that this process stands under, with /proc and /sys below `root`.
fn limits(root: &Path) -> Result<Vec<(Limit, u64)>, HostMemoryError> {
    let mut limits = vec![(Limit::Host, field_kib(&root.join("proc/meminfo"), "MemAvailable:")?)];
    limits.extend(control_group_limits(root));
    Ok(limits)
}

/// The limits of this process's control group (v2) and of those it lies in, where they can be read:
/// without that hierarchy, or without permission to look, the host's memory alone decides.
fn control_group_limits(root: &Path) -> Vec<(Limit, u64)> {
    let Ok(membership) = fs::read_to_string(root.join("proc/self/cgroup")) else {
        return Vec::new();
    };
    let Some(own) = membership.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Vec::new();
    };
    let mount = root.join("sys/fs/cgroup");
    let own = mount.join(own);
    own.ancestors()
        .take_while(|group| group.starts_with(&mount))
        .filter_map(|group| {
            // "max" is no number and so no limit.
            let max: u64 = number(&group.join("memory.max"))?;
            let current: u64 = number(&group.join("memory.current"))?;
            Some((Limit::ControlGroup(group.to_owned()), max.saturating_sub(current)))
        })
        .collect()
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The bytes of the line `name` in a file of lines such as `MemAvailable:  1234 kB`.
fn field_kib(path: &Path, name: &str) -> Result<u64, HostMemoryError> {
    let unreadable = |source| HostMemoryError::Unreadable { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(unreadable)?;
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .and_then(|kib| kib.checked_mul(1024))
        .ok_or_else(|| {
            unreadable(io::Error::new(io::ErrorKind::InvalidData, format!("no number at {name}")))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIB: u64 = 1 << 40;

    #[test]
    fn what_no_host_has_is_refused_and_nothing_is_set_aside() {
        let pool = HostMemoryPool::new(false);
        let error = pool.reserve(4096 * TIB).unwrap_err();
        assert!(matches!(error, HostMemoryError::NotEnough { reserved_bytes: 0, .. }), "{error}");
        assert_eq!(*pool.reserved_bytes.lock().unwrap(), 0);
        assert!(pool.check_room_for(u64::MAX).is_err());
        assert!(HostMemoryPool::new(true).reserve(u64::MAX).is_ok());
    }

    #[test]
    fn a_dropped_reservation_is_given_back() {
        let pool = HostMemoryPool::new(false);
        let first = pool.reserve(4096).unwrap();
        let second = pool.reserve(8192).unwrap();
        drop(first);
        assert_eq!(*pool.reserved_bytes.lock().unwrap(), 8192);
        drop(second);
        assert_eq!(*pool.reserved_bytes.lock().unwrap(), 0);
    }

    #[test]
    fn every_control_group_on_the_way_up_limits() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/meminfo", "MemTotal:  9 kB\nMemAvailable:    4 kB\n");
        write("proc/self/cgroup", "0::/outer/inner\n");
        write("sys/fs/cgroup/outer/memory.max", "1000\n");
        write("sys/fs/cgroup/outer/memory.current", "400\n");
        write("sys/fs/cgroup/outer/inner/memory.max", "max\n");
        write("sys/fs/cgroup/outer/inner/memory.current", "300\n");
        let outer = root.path().join("sys/fs/cgroup/outer");
        assert_eq!(
            limits(root.path()).unwrap(),
            [(Limit::Host, 4096), (Limit::ControlGroup(outer), 600)]
        );
    }

    #[test]
    fn a_file_without_the_line_is_named_in_the_error() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc")).unwrap();
        fs::write(root.path().join("proc/meminfo"), "MemFree: 1 kB\n").unwrap();
        let error = limits(root.path()).unwrap_err();
        assert!(error.to_string().contains("proc/meminfo"), "{error}");
    }
}
