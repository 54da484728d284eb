//! The command to try next: the first of a few, from many VMs to a small one, that this process may run.

use std::fmt;

use pagefold::limits::RoomError;
use pagefold::limits::room::VmShape;
use pagefold::memory::HostMemoryPool;
use pagefold_dedup::DedupMode;

use crate::demand::Demand;
use crate::size::Size;

/// What `run` gives a VM unless another size is given.
const DEFAULT_BYTES: u64 = 64 << 20;

/// What the built-in guest has besides memory.
const SHAPE: VmShape = VmShape { vcpus: 1, event_descriptors: 0, disks: 0 };

/// VMs to try: how many, and how large.
const CHOICES: [(u32, u64); 5] =
    [(4, DEFAULT_BYTES), (3, DEFAULT_BYTES), (2, DEFAULT_BYTES), (1, DEFAULT_BYTES), (1, 16 << 20)];

/// A `run` and what keeps this process from it, checked as by `run` itself.
#[derive(Debug)]
pub(super) struct Suggestion {
    demand: Demand,
    lacking: Vec<RoomError>,
    lacks_memory: bool,
}

/// What this process may run.
#[derive(Debug)]
pub(super) struct Suggestions {
    /// The most of them, which need the most of everything.
    pub(super) wanted: Suggestion,
    /// The smallest.
    pub(super) least: Suggestion,
    /// The first that this process may run, if there is one.
    pub(super) fitting: Option<Suggestion>,
}

impl Suggestions {
    /// Tries one after the other. What this process has by then counts as used.
    pub(super) fn new() -> Self {
        let [wanted, .., least] = CHOICES.map(Suggestion::new);
        let fitting = CHOICES.into_iter().map(Suggestion::new).find(Suggestion::fits);
        Self { wanted, least, fitting }
    }
}

impl Suggestion {
    fn new((count, memory_bytes): (u32, u64)) -> Self {
        let demand = Demand { count, shape: SHAPE, memory_bytes, dedup: DedupMode::On };
        let memory = HostMemoryPool::of_process(false).check_room_for(demand.all_memory_bytes());
        Self { demand, lacking: demand.lacking(), lacks_memory: memory.is_err() }
    }

    fn fits(&self) -> bool {
        self.lacking.is_empty() && !self.lacks_memory
    }

    /// What of one kind there is too little of.
    pub(super) fn lacks(&self, is_wanted: impl Fn(&RoomError) -> bool) -> Option<&RoomError> {
        self.lacking.iter().find(|error| is_wanted(error))
    }

    /// Whether the VMs could need more memory than there is.
    pub(super) fn lacks_memory(&self) -> bool {
        self.lacks_memory
    }
}

/// As it is typed.
impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Demand { count, memory_bytes, .. } = self.demand;
        write!(f, "pagefold run -n {count} ")?;
        if memory_bytes != DEFAULT_BYTES {
            write!(f, "--memory {} ", Size(memory_bytes))?;
        }
        f.write_str("--for 20s")
    }
}
