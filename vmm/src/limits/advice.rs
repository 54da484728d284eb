//! Which limit an error of the kernel's comes from, and how to raise it.

use std::io;

use super::mappings::{self, Mappings};
use super::rlimit::{Resource, Rlimits, address_space_bytes, data_bytes};
use super::threads;
use super::tree::Tree;

/// Threads left under a limit that has certainly been hit by one who starts many at once.
const FEW_THREADS: u64 = 64;

/// Private memory left under a limit that has certainly been hit by one who starts threads: each has a stack.
const LITTLE_DATA_BYTES: u64 = 4 << 20;

/// What to do about `error` if it comes from a limit of this process; `None` if it does not, or
/// that cannot be determined. To be called soon: the limits are read as they are now.
pub fn advice(error: &io::Error) -> Option<String> {
    advice_for(&Tree::real(), error.raw_os_error()?)
}

/// The same for an error number and what a made-up kernel reports.
fn advice_for(tree: &Tree, errno: i32) -> Option<String> {
    let limits = Rlimits::read(tree).unwrap_or_default();
    match errno {
        libc::EMFILE => {
            let now = limits.get(Resource::OpenFiles).map(|now| format!(", now {now}"));
            Some(format!(
                "raise the limit on open files of this process (ulimit -n{})",
                now.unwrap_or_default()
            ))
        }
        libc::ENFILE => {
            Some("raise the host's limit on open files (sysctl fs.file-max)".to_owned())
        }
        libc::EFBIG => {
            let now = limits.get(Resource::FileSize)?;
            Some(format!(
                "raise the limit on the length of files (ulimit -f, now {} KiB): a store of shared \
                 pages is a file in memory, as long as all pages that it could hold",
                now >> 10
            ))
        }
        libc::EAGAIN => no_thread(tree).or_else(|| no_stack(tree, &limits)),
        libc::ENOMEM => no_mapping(tree, &limits),
        _ => None,
    }
}

/// What keeps a process from starting a thread.
fn no_thread(tree: &Tree) -> Option<String> {
    let rooms = threads::rooms(tree);
    let tightest = rooms.into_iter().min_by_key(threads::ThreadRoom::left)?;
    let is_hit = tightest.left() < FEW_THREADS;
    is_hit.then(|| {
        format!(
            "raise {}, now {} of which {} are in use",
            tightest.limit, tightest.max, tightest.current
        )
    })
}

/// What keeps a process from having another thread's stack.
fn no_stack(tree: &Tree, limits: &Rlimits) -> Option<String> {
    let max = limits.get(Resource::Data)?;
    let is_hit = max.saturating_sub(data_bytes(tree)?) < LITTLE_DATA_BYTES;
    is_hit.then(|| no_data(max))
}

fn no_data(max_bytes: u64) -> String {
    let (resource, mib) = (Resource::Data, max_bytes >> 20);
    format!("raise the limit on {resource} ({}, now {mib} MiB)", resource.command())
}

/// What keeps a process from mapping memory.
fn no_mapping(tree: &Tree, limits: &Rlimits) -> Option<String> {
    if let Some(mappings) = Mappings::read(tree).filter(Mappings::are_short) {
        let double = mappings.max.saturating_mul(2);
        return Some(format!(
            "raise the limit on mappings, of which {} of {} are in use: sysctl {}={double}",
            mappings.current,
            mappings.max,
            mappings::NAME
        ));
    }
    if let Some(max) = limits.get(Resource::AddressSpace) {
        let resource = Resource::AddressSpace;
        let used = address_space_bytes(tree).map(|used| format!(", {} in use", used >> 20));
        return Some(format!(
            "raise the limit on {resource} ({}, now {} MiB{}): a store of shared pages is mapped as far as it is \
             used, four times the VMs' memory at most",
            resource.command(),
            max >> 20,
            used.unwrap_or_default()
        ));
    }
    if let Some(max) = limits.get(Resource::Data) {
        return Some(no_data(max));
    }
    if tree.number("/proc/sys/vm/overcommit_memory") == Some(2) {
        return Some(
            "let the kernel promise memory that is not written yet: sysctl \
             vm.overcommit_memory=0"
                .to_owned(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "Max open files 8 20 files\nMax file size 1024000 unlimited bytes\n";
    const MAX_MAPS: (&str, &str) = ("/proc/sys/vm/max_map_count", "100\n");

    fn advice(files: &[(&str, &str)], errno: i32) -> String {
        let (tree, _files) = Tree::made_up(files);
        advice_for(&tree, errno).unwrap_or_default()
    }

    #[test]
    fn each_error_names_the_limit_that_was_hit() {
        let limits = ("/proc/self/limits", LIMITS);
        assert!(advice(&[limits], libc::EMFILE).contains("(ulimit -n, now 8)"));
        assert!(advice(&[], libc::EMFILE).contains("(ulimit -n)"));
        assert!(advice(&[], libc::ENFILE).contains("fs.file-max"));
        assert!(advice(&[limits], libc::EFBIG).contains("(ulimit -f, now 1000 KiB)"));
        assert_eq!(advice(&[limits], libc::EINVAL), "");
    }

    #[test]
    fn want_of_a_thread_names_the_tightest_limit_if_it_is_tight() {
        let group = |max| {
            advice(
                &[
                    ("/proc/self/cgroup", "5:pids:/a\n"),
                    ("/proc/self/mountinfo", "1 2 0:3 / /pids rw - cgroup cgroup rw,pids\n"),
                    ("/pids/a/pids.max", max),
                    ("/pids/a/pids.current", "2\n"),
                ],
                libc::EAGAIN,
            )
        };
        assert_eq!(
            group("3\n"),
            "raise pids.max of the control group /pids/a, now 3 of which 2 are in use"
        );
        assert_eq!((group("max\n"), group("1000\n")), (String::new(), String::new()));
        assert_eq!(advice(&[], libc::EAGAIN), "");
    }

    #[test]
    fn want_of_a_threads_stack_names_private_memory_if_little_is_left() {
        let limits = ("/proc/self/limits", "Max data size 104857600 unlimited bytes\n");
        let with = |status| advice(&[limits, ("/proc/self/status", status)], libc::EAGAIN);
        assert!(with("VmData:   101000 kB\n").contains("private memory (ulimit -d, now 100 MiB)"));
        assert_eq!(with("VmData:   20000 kB\n"), "");
    }

    #[test]
    fn want_of_a_mapping_names_mappings_address_space_or_overcommitment() {
        let many = "x\n".repeat(98);
        let address_space = ("/proc/self/limits", "Max address space 104857600 unlimited bytes\n");
        let few = ("/proc/self/maps", "x\n");
        let status = ("/proc/self/status", "VmSize:   20480 kB\n");
        let maps = advice(&[MAX_MAPS, ("/proc/self/maps", &many), address_space], libc::ENOMEM);
        assert!(maps.contains("98 of 100 are in use: sysctl vm.max_map_count=200"), "{maps}");
        let space = advice(&[MAX_MAPS, few, address_space, status], libc::ENOMEM);
        assert!(space.contains("(ulimit -v, now 100 MiB, 20 in use)"), "{space}");
        assert!(space.contains("four times the VMs' memory"), "{space}");
        let strict = [MAX_MAPS, few, ("/proc/sys/vm/overcommit_memory", "2\n")];
        assert!(advice(&strict, libc::ENOMEM).contains("vm.overcommit_memory=0"));
        assert_eq!(advice(&[MAX_MAPS, few], libc::ENOMEM), "");
    }
}
