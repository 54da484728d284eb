//! Limits of this process: whether a small VM fits under each, and how many would.

use pagefold::limits::room::{self, Needs};
use pagefold::limits::{Resource, Rlimits, RoomError, Tree, threads};
use pagefold_dedup::EngineConfig;

use super::finding::{Finding, Verdict};

/// All limits but those of memory and mappings.
pub(super) fn check() -> Vec<Finding> {
    let tree = Tree::real();
    let store_bytes = EngineConfig::default().store_bytes().unwrap_or(0);
    let needs = Needs::of_vms(1, 64 << 20, store_bytes);
    let lacking = room::lacking(&tree, &needs);
    let limits = Rlimits::read(&tree).unwrap_or_default();
    let amount = |resource| limits.get(resource).map_or("no limit".to_owned(), |n| n.to_string());
    let kib = |resource| {
        limits.get(resource).map_or("no limit".to_owned(), |n| format!("{} KiB", n >> 10))
    };
    let files = format!("{} (ulimit -n)", amount(Resource::OpenFiles));
    let locked = format!("{} (ulimit -l)", kib(Resource::LockedMemory));
    vec![
        finding(
            "open files",
            "each VM takes two, beside some thirty for all",
            files,
            lacking.iter().find(|error| matches!(error, RoomError::OpenFiles { .. })),
        ),
        finding(
            "threads",
            "each VM takes two, one of them the kernel's",
            threads(&tree),
            lacking.iter().find(|error| matches!(error, RoomError::Threads { .. })),
        ),
        finding(
            "file length",
            "a store of shared pages is a file in memory, of twice the host's memory, mostly empty",
            format!("{} (ulimit -f)", kib(Resource::FileSize)),
            lacking.iter().find(|error| matches!(error, RoomError::FileSize { .. })),
        ),
        finding(
            "address space",
            "a store is mapped as far as it is used: four times the VMs' memory at most",
            format!("{} (ulimit -v)", kib(Resource::AddressSpace)),
            lacking.iter().find(|error| matches!(error, RoomError::AddressSpace { .. })),
        ),
        finding("locked memory", "does not matter here: nothing is locked", locked, None),
    ]
}

fn threads(tree: &Tree) -> String {
    let tightest = threads::rooms(tree).into_iter().min_by_key(threads::ThreadRoom::left);
    tightest.map_or("no limit of this process's own".to_owned(), |room| {
        format!("{}: {}, of which {} are in use", room.limit, room.max, room.current)
    })
}

fn finding(
    name: &'static str,
    meaning: &'static str,
    found: String,
    lacking: Option<&RoomError>,
) -> Finding {
    Finding {
        name,
        verdict: if lacking.is_some() { Verdict::Missing } else { Verdict::Good },
        found: lacking.map_or(found, ToString::to_string),
        meaning,
        fix: lacking.map(RoomError::advice),
    }
}
