//! What the kernel reports of a process.
//!
//! Source: the kernel's `Documentation/filesystems/proc.rst`.

mod smaps;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

pub use smaps::{Mapping, mappings, rollup_pss_bytes};

/// What the name of a store's memfd looks like behind a descriptor or a mapping.
pub const STORE_NAME: &str = "/memfd:pagefold-store";

/// Bytes in the unit of `st_blocks` (`stat(2)`).
const BLOCK_BYTES: u64 = 512;

/// A store that a process has open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Its inode.
    pub inode: u64,
    /// A link to it: `/proc/PID/fd/N`.
    pub link: String,
    /// What the kernel holds for it.
    pub held_bytes: u64,
}

/// What the descriptors of a process lead to, sorted. Empty if the process is gone.
pub fn descriptors(pid: u32) -> Vec<String> {
    let mut targets: Vec<String> = links(pid).into_iter().map(|(_, target)| target).collect();
    targets.sort();
    targets
}

/// The stores that a process has open, each once.
pub fn stores(pid: u32) -> Vec<Store> {
    let mut stores = BTreeMap::new();
    for (link, target) in links(pid) {
        if !target.starts_with(STORE_NAME) {
            continue;
        }
        // Gone again if the process has closed it meanwhile.
        if let Ok(metadata) = fs::metadata(&link) {
            let (inode, held_bytes) = (metadata.ino(), metadata.blocks() * BLOCK_BYTES);
            stores.insert(inode, Store { inode, link, held_bytes });
        }
    }
    stores.into_values().collect()
}

/// The processes that there are.
pub fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The names of a process's threads, sorted.
pub fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    let mut names: Vec<String> = tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect();
    names.sort();
    names
}

/// A line of the calling thread's status: what follows its name.
pub fn status_field(name: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").expect("/proc is mounted");
    let field = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    field.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

/// Shared memory of the whole machine, less what stores take that some process still has.
pub fn orphaned_shmem_bytes() -> u64 {
    let before = shmem_bytes();
    let held: BTreeMap<u64, u64> = processes()
        .into_iter()
        .flat_map(stores)
        .map(|store| (store.inode, store.held_bytes))
        .collect();
    // A process of somebody else's that ended meanwhile, unseen, is only in the first figure.
    before.min(shmem_bytes()).saturating_sub(held.values().sum())
}

fn shmem_bytes() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").expect("/proc is mounted");
    smaps::field_bytes(&meminfo, "Shmem").expect("Shmem")
}

/// Processes that have the store open or mapped.
pub fn users_of_store(inode: u64) -> Vec<u32> {
    let has = |pid: &u32| {
        let inode_text = inode.to_string();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let mapped = maps
            .lines()
            .filter(|line| line.contains(STORE_NAME))
            .any(|line| line.split_ascii_whitespace().nth(4) == Some(&inode_text));
        mapped || stores(*pid).iter().any(|store| store.inode == inode)
    };
    processes().into_iter().filter(has).collect()
}

/// Each descriptor of a process and what it leads to.
fn links(pid: u32) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let link = |path: &std::path::Path| {
        let target = fs::read_link(path).ok()?;
        Some((path.to_str()?.to_owned(), target.to_str()?.to_owned()))
    };
    entries.filter_map(|entry| link(&entry.ok()?.path())).collect()
}
