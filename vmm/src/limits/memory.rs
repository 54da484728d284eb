//! Memory: how much this process could have resident under each limit, and how much of it it has.
//!
//! Source: `proc_meminfo(5)`, `proc_pid_status(5)`, and [`cgroup`](super::cgroup).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::cgroup::{GroupMemory, groups};
use super::tree::Tree;

/// What limits the memory of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// The host's memory.
    Host,
    /// That of a control group.
    ControlGroup(PathBuf),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("the host"),
            Self::ControlGroup(path) => write!(f, "the control group {}", path.display()),
        }
    }
}

/// Memory under one limit, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryRoom {
    /// What limits it.
    pub limit: Limit,
    /// How much there is for everybody.
    pub max_bytes: u64,
    /// How much nobody has, or only the cache of files.
    pub free_bytes: u64,
}

impl MemoryRoom {
    /// What a process could have resident of which `own_bytes` are there already, in memory or in
    /// swap.
    pub fn available_to(&self, own_bytes: u64) -> u64 {
        self.free_bytes.saturating_add(own_bytes).min(self.max_bytes)
    }

    fn of_group(path: PathBuf, memory: GroupMemory) -> Self {
        let used_bytes = memory.current_bytes - memory.cache_bytes;
        Self {
            limit: Limit::ControlGroup(path),
            max_bytes: memory.max_bytes,
            free_bytes: memory.max_bytes.saturating_sub(used_bytes),
        }
    }
}

/// A file of the kernel's that cannot be read, or is not understood.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {} to see how much memory there is", path.display())]
pub struct MemoryError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Memory under every limit that this process stands under: the host's first, then that of its
/// control groups, where they can be read.
///
/// # Errors
///
/// When the host's cannot be read.
pub fn rooms(tree: &Tree) -> Result<Vec<MemoryRoom>, MemoryError> {
    let path = Path::new("/proc/meminfo");
    let host = MemoryRoom {
        limit: Limit::Host,
        max_bytes: file_field(tree, path, "MemTotal:")?,
        free_bytes: file_field(tree, path, "MemAvailable:")?,
    };
    let mut rooms = vec![host];
    for group in groups(tree, "memory") {
        if let Some(memory) = group.memory(tree) {
            rooms.push(MemoryRoom::of_group(group.path, memory));
        }
    }
    Ok(rooms)
}

/// The memory that this process has: what is anonymous, in memory or in swap, and each store once,
/// however many VMs map it.
///
/// # Errors
///
/// When it cannot be read.
pub fn own_bytes(tree: &Tree) -> Result<u64, MemoryError> {
    let path = Path::new("/proc/self/status");
    let anonymous = file_field(tree, path, "RssAnon:")? + file_field(tree, path, "VmSwap:")?;
    Ok(anonymous.saturating_add(pagefold_dedup::resident_store_bytes()))
}

/// The most memory that this process could have resident, what it has included, and what limits
/// it.
///
/// # Errors
///
/// When it cannot be read.
pub fn available(tree: &Tree) -> Result<(Limit, u64), MemoryError> {
    let own_bytes = own_bytes(tree)?;
    let rooms = rooms(tree)?;
    let tightest = rooms.into_iter().map(|room| (room.available_to(own_bytes), room.limit));
    let (bytes, limit) = tightest.min_by_key(|&(bytes, _)| bytes).unwrap_or((0, Limit::Host));
    Ok((limit, bytes))
}

fn file_field(tree: &Tree, path: &Path, name: &str) -> Result<u64, MemoryError> {
    let unreadable = |source| MemoryError { path: tree.path(path), source };
    let text = tree.read(path).map_err(unreadable)?;
    field_kib(&text, name).ok_or_else(|| {
        unreadable(io::Error::new(io::ErrorKind::InvalidData, format!("no number at {name}")))
    })
}

/// The bytes of the line `name` in a file of lines such as `MemAvailable:  1234 kB`.
pub fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: (&str, &str) =
        ("/proc/meminfo", "MemTotal:  9 kB\nMemFree: 1 kB\nMemAvailable:    4 kB\n");
    const MOUNT: (&str, &str) =
        ("/proc/self/mountinfo", "1 2 0:3 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");

    fn room(limit: Limit, max_bytes: u64, free_bytes: u64) -> MemoryRoom {
        MemoryRoom { limit, max_bytes, free_bytes }
    }

    #[test]
    fn every_control_group_on_the_way_up_limits() {
        let (tree, _files) = Tree::made_up(&[
            MEMINFO,
            MOUNT,
            ("/proc/self/cgroup", "0::/outer/inner\n"),
            ("/sys/fs/cgroup/outer/memory.max", "1000\n"),
            ("/sys/fs/cgroup/outer/memory.current", "400\n"),
            ("/sys/fs/cgroup/outer/memory.stat", "inactive_file 30\nactive_file 20\n"),
            ("/sys/fs/cgroup/outer/inner/memory.max", "max\n"),
            ("/sys/fs/cgroup/outer/inner/memory.current", "300\n"),
        ]);
        let outer = Limit::ControlGroup("/sys/fs/cgroup/outer".into());
        assert_eq!(
            rooms(&tree).unwrap(),
            [room(Limit::Host, 9 << 10, 4 << 10), room(outer, 1000, 650)]
        );
    }

    #[test]
    fn without_control_groups_the_host_alone_limits() {
        let (tree, _files) = Tree::made_up(&[MEMINFO]);
        assert_eq!(rooms(&tree).unwrap(), [room(Limit::Host, 9 << 10, 4 << 10)]);
    }

    #[test]
    fn own_memory_is_available_but_never_more_than_there_is() {
        let room = room(Limit::Host, 1000, 300);
        assert_eq!([0, 200, 900].map(|own| room.available_to(own)), [300, 500, 1000]);
    }

    #[test]
    fn a_file_without_the_line_is_named_in_the_error() {
        let (tree, _files) = Tree::made_up(&[("/proc/meminfo", "MemFree: 1 kB\n")]);
        let error = rooms(&tree).unwrap_err();
        assert!(error.to_string().contains("proc/meminfo"), "{error}");
    }

    #[test]
    fn own_memory_is_anonymous_and_swapped() {
        let status = "VmSwap:  3 kB\nRssAnon:  5 kB\nRssShmem:  100 kB\n";
        let (tree, _files) = Tree::made_up(&[("/proc/self/status", status)]);
        assert_eq!(own_bytes(&tree).unwrap() - pagefold_dedup::resident_store_bytes(), 8 << 10);
        assert!(available(&Tree::real()).unwrap().1 > 1 << 20);
    }
}
