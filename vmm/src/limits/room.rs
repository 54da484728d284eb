//! Whether VMs fit under the limits of this process, checked before the first is made.

use std::thread::available_parallelism;

use pagefold_devices::WorkerPool;
use pagefold_devices::virtio::block::MAX_RUNNING;

use super::mappings::{self, Mappings};
use super::rlimit::{Resource, Rlimits, address_space_bytes, data_bytes};
use super::threads::{self, ThreadLimit};
use super::tree::Tree;

/// Descriptors of a process with VMs: standard ones, the control socket with a few clients, KVM,
/// events, and those of folding.
const BASE_FILES: u64 = 32;

/// Descriptors of a process that folds images: standard ones, a store, and those of folding.
const BASE_FILES_OF_IMAGES: u64 = 12;

/// Descriptors of a VM: its own. Each vCPU has another, and each interrupt line.
const FILES_PER_VM: u64 = 1;

/// Threads of a process with VMs beside those that fold: its own, signals, events, the socket's.
const BASE_THREADS: u64 = 11;

/// Threads of a VM beside its vCPUs': one of KVM's that the kernel counts as the process's.
const THREADS_PER_VM: u64 = 1;

/// Address space of a process with VMs: its threads' stacks and heaps.
const BASE_SPACE_BYTES: u64 = 768 << 20;

/// Address space of a vCPU: its thread's heap, of which little is ever used.
const SPACE_PER_VCPU_BYTES: u64 = 80 << 20;

/// Address space for the slots that pages are compared with, of each byte of memory: as many slots are in use
/// as there are pages, as many numbers are kept unused, and each further part that is mapped of a store is as large as
/// all before it.
const VIEW_PER_BYTE: u64 = 4;

/// What is mapped of any store.
const LEAST_VIEW_BYTES: u64 = 16 << 20;

/// Private memory of a process with VMs: its threads' stacks and heaps.
const BASE_DATA_BYTES: u64 = 32 << 20;

/// Private memory of a vCPU: a thread's stack, and what is known of its VM's pages.
const DATA_PER_VCPU_BYTES: u64 = 1 << 20;

/// Private memory for what is known of a VM's pages: this part of theirs.
const DATA_OF_PAGES: u64 = 64;

/// Mappings of a process with VMs that are no guest memory: six for each thread, of which up to 32 carry out
/// requests, and those of folding.
const BASE_MAPPINGS: u64 = 256;

/// Mappings of a vCPU: its own and its thread's, and those of large sets of its VM's pages.
const MAPPINGS_PER_VCPU: u64 = 6;

/// What is going to be needed, by a process that has little of it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    files: u64,
    threads: u64,
    space_bytes: u64,
    store_bytes: u64,
    /// What of the store is mapped at most.
    view_bytes: u64,
    data_bytes: u64,
    /// Mappings beside those that folding makes of guest memory.
    mappings: u64,
}

/// What a VM has besides memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmShape {
    /// Its vCPUs.
    pub vcpus: u32,
    /// Event descriptors of its devices.
    pub event_descriptors: u32,
    /// Its disks.
    pub disks: u32,
}

impl Needs {
    /// What it takes to run VMs with so many bytes of memory in all, folded into a store of
    /// `store_bytes`, or not at all if that is 0.
    pub fn of_vms(count: u32, each: VmShape, memory_bytes: u64, store_bytes: u64) -> Self {
        let count = u64::from(count);
        let vcpus = count * u64::from(each.vcpus);
        let events = count * u64::from(each.event_descriptors);
        let disks = count * u64::from(each.disks);
        let disk_threads = (disks * MAX_RUNNING as u64).min(WorkerPool::max_threads() as u64);
        // Each has a stack, and a heap of its own.
        let threads = vcpus + disk_threads;
        // A VM that has disks is torn down by a thread of its own.
        let teardown_threads = count.min(disks);
        Self {
            files: BASE_FILES + count * FILES_PER_VM + vcpus + events + disks,
            threads: processors()
                + BASE_THREADS
                + count * THREADS_PER_VM
                + threads
                + teardown_threads,
            space_bytes: (BASE_SPACE_BYTES + threads * SPACE_PER_VCPU_BYTES)
                .saturating_add(memory_bytes),
            store_bytes,
            view_bytes: view_bytes(memory_bytes, store_bytes),
            data_bytes: (BASE_DATA_BYTES + threads * DATA_PER_VCPU_BYTES)
                .saturating_add(memory_bytes)
                .saturating_add(memory_bytes / DATA_OF_PAGES),
            mappings: BASE_MAPPINGS + threads * MAPPINGS_PER_VCPU,
        }
    }

    /// What it takes to read files, and to fold what is in them if `store_bytes` is not 0.
    pub fn of_images(count: usize, memory_bytes: u64, store_bytes: u64) -> Self {
        Self {
            files: BASE_FILES_OF_IMAGES + count as u64,
            // Those that read, those that fold, and two that serve userfaultfds.
            threads: 2 * processors() + 2,
            space_bytes: BASE_SPACE_BYTES.saturating_add(memory_bytes),
            store_bytes,
            view_bytes: view_bytes(memory_bytes, store_bytes),
            // Small, or refused by the kernel when the first is made.
            data_bytes: 0,
            mappings: 0,
        }
    }
}

fn view_bytes(memory_bytes: u64, store_bytes: u64) -> u64 {
    let most = memory_bytes.saturating_mul(VIEW_PER_BYTE).saturating_add(LEAST_VIEW_BYTES);
    most.min(store_bytes)
}

/// One folding thread is started for each.
fn processors() -> u64 {
    available_parallelism().map_or(1, |count| count.get() as u64)
}

/// What there is too little of. Nothing has been made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// Descriptors.
    #[error("{needed} open files may be needed, and this process may have {max}")]
    OpenFiles {
        /// How many it takes.
        needed: u64,
        /// How many it may have.
        max: u64,
    },
    /// Threads.
    #[error("{needed} more threads may be needed, and {limit}, {max}, leaves {left}")]
    Threads {
        /// How many it takes beside those that there are.
        needed: u64,
        /// How many there may be.
        max: u64,
        /// How many more there may be.
        left: u64,
        /// What limits them.
        limit: ThreadLimit,
    },
    /// The length of files.
    #[error(
        "a store of shared pages is a file in memory of {} MiB, most of it empty, and this process \
         may make files of {} KiB at most",
        needed_bytes >> 20, max_bytes >> 10
    )]
    FileSize {
        /// The store's length.
        needed_bytes: u64,
        /// How long a file may be.
        max_bytes: u64,
    },
    /// Address space.
    #[error(
        "{} MiB of address space may be needed, of which {} MiB for a store of shared pages, which \
         takes memory only as it fills, and this process may have {} MiB",
        needed_bytes >> 20, view_bytes >> 20, max_bytes >> 20
    )]
    AddressSpace {
        /// How much it takes in all.
        needed_bytes: u64,
        /// How much of that the store takes.
        view_bytes: u64,
        /// How much it may have.
        max_bytes: u64,
    },
    /// Private memory.
    #[error(
        "{} MiB of private memory may be needed, and this process may have {} MiB",
        needed_bytes >> 20, max_bytes >> 20
    )]
    PrivateMemory {
        /// How much it takes in all.
        needed_bytes: u64,
        /// How much it may have.
        max_bytes: u64,
    },
    /// Mappings.
    #[error(
        "the process itself, guest memory apart, may need {own} more mappings, and {}, {max}, leaves it {left}",
        mappings::NAME
    )]
    Mappings {
        /// How many it takes that are no guest memory.
        own: u64,
        /// How many there are for these.
        left: u64,
        /// How many there may be in all.
        max: u64,
        /// How many there would have to be.
        needed: u64,
    },
}

/// Address space that the C library may reserve for another thread's allocations at any time.
const ARENA_BYTES: u64 = 64 << 20;

impl RoomError {
    /// What to do about it.
    pub fn advice(&self) -> String {
        match self {
            Self::OpenFiles { needed, .. } => {
                format!(
                    "allow them ({}), or ask for less at once",
                    Resource::OpenFiles.command_for(*needed)
                )
            }
            Self::Threads { needed, max, left, limit } => format!(
                "allow them ({}), or ask for less at once",
                limit.command_for(max + needed.saturating_sub(*left))
            ),
            Self::FileSize { .. } => format!("{} unlimited", Resource::FileSize.command()),
            Self::AddressSpace { needed_bytes, .. } => format!(
                "{} unlimited, or at least {}",
                Resource::AddressSpace.command(),
                Resource::AddressSpace.command_for(needed_bytes + ARENA_BYTES)
            ),
            Self::PrivateMemory { needed_bytes, .. } => format!(
                "{} unlimited, or at least {}",
                Resource::Data.command(),
                Resource::Data.command_for(*needed_bytes)
            ),
            Self::Mappings { needed, .. } => {
                format!("allow them (sysctl {}={needed}), or ask for less at once", mappings::NAME)
            }
        }
    }
}

/// Everything that there is too little of for `needs`, memory apart. What a limit cannot be read of
/// is not limited by it.
pub fn lacking(tree: &Tree, needs: &Needs) -> Vec<RoomError> {
    let limits = Rlimits::read(tree).unwrap_or_default();
    let found = [
        open_files(&limits, needs),
        too_few_threads(tree, needs),
        file_size(&limits, needs),
        address_space(tree, &limits, needs),
        private_memory(tree, &limits, needs),
        too_few_mappings(tree, needs),
    ];
    found.into_iter().flatten().collect()
}

fn open_files(limits: &Rlimits, needs: &Needs) -> Option<RoomError> {
    let needed = needs.files;
    let max = limits.get(Resource::OpenFiles).filter(|&max| max < needed)?;
    Some(RoomError::OpenFiles { needed, max })
}

fn too_few_threads(tree: &Tree, needs: &Needs) -> Option<RoomError> {
    let needed = needs.threads;
    let tightest = threads::rooms(tree).into_iter().min_by_key(threads::ThreadRoom::left)?;
    let left = tightest.left();
    let (max, limit) = (tightest.max, tightest.limit);
    (left < needed).then_some(RoomError::Threads { needed, max, left, limit })
}

fn file_size(limits: &Rlimits, needs: &Needs) -> Option<RoomError> {
    let needed_bytes = needs.store_bytes;
    let max_bytes = limits.get(Resource::FileSize).filter(|&max| max < needed_bytes)?;
    Some(RoomError::FileSize { needed_bytes, max_bytes })
}

fn address_space(tree: &Tree, limits: &Rlimits, needs: &Needs) -> Option<RoomError> {
    let needed_bytes = address_space_bytes(tree)
        .unwrap_or(0)
        .saturating_add(needs.space_bytes)
        .saturating_add(needs.view_bytes);
    let max_bytes = limits.get(Resource::AddressSpace).filter(|&max| max < needed_bytes)?;
    Some(RoomError::AddressSpace { needed_bytes, view_bytes: needs.view_bytes, max_bytes })
}

fn private_memory(tree: &Tree, limits: &Rlimits, needs: &Needs) -> Option<RoomError> {
    let needed_bytes = data_bytes(tree).unwrap_or(0).saturating_add(needs.data_bytes);
    let max_bytes = limits.get(Resource::Data).filter(|&max| max < needed_bytes)?;
    Some(RoomError::PrivateMemory { needed_bytes, max_bytes })
}

/// A thread that gets no mapping for its signal stack ends the process, and so does a heap that cannot grow: nobody can
/// recover from that, so it must not come to it.
fn too_few_mappings(tree: &Tree, needs: &Needs) -> Option<RoomError> {
    let Mappings { max, current } = Mappings::read(tree)?;
    let own = needs.mappings;
    // Folding makes as many as its budget is.
    let share = if needs.store_bytes > 0 { mappings::OWN_SHARE } else { 1 };
    let left = max.saturating_sub(current) / share;
    let needed = current.saturating_add(own.saturating_mul(share));
    (left < own).then_some(RoomError::Mappings { own, left, max, needed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking_under(limits: &str) -> Vec<RoomError> {
        let (tree, _files) = Tree::made_up(&[("/proc/self/limits", limits)]);
        lacking(&tree, &Needs::of_vms(4, SHAPE, 1 << 30, 48 << 30))
    }

    const SHAPE: VmShape = VmShape { vcpus: 1, event_descriptors: 0, disks: 0 };

    #[test]
    fn what_is_lacking_says_how_much_and_what_to_do() {
        for (limits, message, advice) in [
            ("Max open files 8 8 files\n", "40 open files", "ulimit -n 40"),
            ("Max file size 1024000 9 bytes\n", "49152 MiB", "ulimit -f unlimited"),
            ("Max address space 5368709120 9 bytes\n", "of which 4112 MiB", "ulimit -v unlimited"),
            (
                "Max data size 1073741824 9 bytes\n",
                "1076 MiB of private memory",
                "ulimit -d 1101824",
            ),
        ] {
            let found = lacking_under(limits);
            let [error] = &found[..] else { panic!("{limits}: {found:?}") };
            assert!(error.to_string().contains(message), "{error}");
            assert!(error.advice().contains(advice), "{}", error.advice());
        }
        assert_eq!(lacking_under("Max open files 40 40 files\nMax file size unlimited 1 b\n"), []);
        assert_eq!(lacking_under(""), []);
    }

    #[test]
    fn a_disk_takes_a_descriptor_and_threads_as_far_as_there_are_any() {
        let of_disks = |disks| Needs::of_vms(4, VmShape { disks, ..SHAPE }, 1 << 30, 0);
        let none = of_disks(0);
        for (disks, threads) in [(1, 4 * 4 + 4), (2, 32 + 4), (19, 32 + 4)] {
            let needs = of_disks(disks);
            assert_eq!(needs.files - none.files, 4 * u64::from(disks));
            assert_eq!(needs.threads - none.threads, threads);
            assert!(needs.data_bytes > none.data_bytes && needs.mappings > none.mappings);
        }
    }

    #[test]
    fn a_process_needs_mappings_beside_those_that_folding_may_make() {
        let lacking = |max: &str, store_bytes| {
            let files = [("/proc/sys/vm/max_map_count", max), ("/proc/self/maps", "a\nb\n")];
            let (tree, _files) = Tree::made_up(&files);
            lacking(&tree, &Needs::of_vms(4, SHAPE, 1 << 30, store_bytes))
        };
        let found = lacking("500\n", 48 << 30);
        let [error @ RoomError::Mappings { own: 280, left: 62, .. }] = &found[..] else {
            panic!("{found:?}")
        };
        assert!(
            error.to_string().contains("280 more mappings, and vm.max_map_count, 500"),
            "{error}"
        );
        assert!(error.advice().contains("sysctl vm.max_map_count=2242"), "{}", error.advice());
        assert_eq!(lacking("2242\n", 48 << 30), []);
        assert_eq!(lacking("65530\n", 48 << 30), []);
        // Without folding all of them are the process's.
        assert_eq!(lacking("500\n", 0), []);
        assert_eq!(lacking("281\n", 0).len(), 1);
    }

    #[test]
    fn a_control_group_with_few_threads_is_named() {
        let (tree, _files) = Tree::made_up(&[
            ("/proc/self/cgroup", "0::/a\n"),
            ("/proc/self/mountinfo", "1 2 0:3 / /two rw - cgroup2 cgroup2 rw\n"),
            ("/two/a/pids.max", "9\n"),
            ("/two/a/pids.current", "5\n"),
        ]);
        let found = lacking(&tree, &Needs::of_vms(4, SHAPE, 1 << 30, 48 << 30));
        let [error @ RoomError::Threads { max: 9, left: 4, .. }] = &found[..] else {
            panic!("{found:?}")
        };
        assert!(error.to_string().contains("control group /two/a, 9, leaves 4"), "{error}");
        assert!(error.advice().contains("/two/a/pids.max"), "{}", error.advice());
    }
}
