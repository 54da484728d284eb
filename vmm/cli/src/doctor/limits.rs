//! Limits of this process: whether the VMs that are suggested fit under each.

use pagefold::limits::{Resource, Rlimits, RoomError, Tree, threads};

use super::finding::{Finding, Verdict};
use super::suggestion::Suggestions;

/// All limits but those of memory and mappings.
pub(super) fn check(suggestions: &Suggestions) -> Vec<Finding> {
    let tree = Tree::real();
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
            suggestions,
            |error| matches!(error, RoomError::OpenFiles { .. }),
        ),
        finding(
            "threads",
            "each VM takes two, one of them the kernel's",
            threads(&tree),
            suggestions,
            |error| matches!(error, RoomError::Threads { .. }),
        ),
        finding(
            "file length",
            "a store of shared pages is a file in memory, of twice the host's memory, mostly empty",
            format!("{} (ulimit -f)", kib(Resource::FileSize)),
            suggestions,
            |error| matches!(error, RoomError::FileSize { .. }),
        ),
        finding(
            "address space",
            "a store is mapped as far as it is used: four times the VMs' memory at most",
            format!("{} (ulimit -v)", kib(Resource::AddressSpace)),
            suggestions,
            |error| matches!(error, RoomError::AddressSpace { .. }),
        ),
        finding(
            "private memory",
            "guest memory counts in full, folded or not",
            format!("{} (ulimit -d)", kib(Resource::Data)),
            suggestions,
            |error| matches!(error, RoomError::PrivateMemory { .. }),
        ),
        finding(
            "locked memory",
            "does not matter here: nothing is locked",
            locked,
            suggestions,
            |_| false,
        ),
    ]
}

fn threads(tree: &Tree) -> String {
    let tightest = threads::rooms(tree).into_iter().min_by_key(threads::ThreadRoom::left);
    tightest.map_or("no limit of this process's own".to_owned(), |room| {
        format!("{}: {}, of which {} are in use", room.limit, room.max, room.current)
    })
}

/// Missing if not even the smallest VM fits, and poor if only the many do not.
fn finding(
    name: &'static str,
    meaning: &'static str,
    found: String,
    suggestions: &Suggestions,
    is_its: fn(&RoomError) -> bool,
) -> Finding {
    let lacking = suggestions.wanted.lacks(is_its);
    let verdict = match lacking {
        None => Verdict::Good,
        Some(_) if suggestions.least.lacks(is_its).is_some() => Verdict::Missing,
        Some(_) => Verdict::Poor,
    };
    Finding {
        name,
        verdict,
        found: lacking.map_or(found, |error| format!("{}: {error}", suggestions.wanted)),
        meaning,
        fix: lacking.map(RoomError::advice),
    }
}
