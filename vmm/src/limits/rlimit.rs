//! Limits that are set with `ulimit`.
//!
//! Source: getrlimit(2) and `proc_pid_limits(5)`.

use std::fmt;
use std::io;

use super::tree::Tree;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Address space, in bytes (`RLIMIT_AS`).
    AddressSpace,
    /// Private memory that can be written, in bytes, whether it is there or not (`RLIMIT_DATA`).
    Data,
    /// Descriptors (`RLIMIT_NOFILE`).
    OpenFiles,
    /// The length of a file, in bytes, one in memory among them (`RLIMIT_FSIZE`).
    FileSize,
    /// Threads of this process's user (`RLIMIT_NPROC`).
    Processes,
    /// Locked memory, in bytes (`RLIMIT_MEMLOCK`).
    LockedMemory,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AddressSpace,
        Self::Data,
        Self::OpenFiles,
        Self::FileSize,
        Self::Processes,
        Self::LockedMemory,
    ];

    /// Its line in `/proc/self/limits`.
    fn name(self) -> &'static str {
        match self {
            Self::AddressSpace => "Max address space",
            Self::Data => "Max data size",
            Self::OpenFiles => "Max open files",
            Self::FileSize => "Max file size",
            Self::Processes => "Max processes",
            Self::LockedMemory => "Max locked memory",
        }
    }

    /// The shell's command for it, without a value.
    pub fn command(self) -> &'static str {
        match self {
            Self::AddressSpace => "ulimit -v",
            Self::Data => "ulimit -d",
            Self::OpenFiles => "ulimit -n",
            Self::FileSize => "ulimit -f",
            Self::Processes => "ulimit -u",
            Self::LockedMemory => "ulimit -l",
        }
    }

    /// The shell's command that allows `value`: bytes are given in KiB there, rounded up.
    pub fn command_for(self, value: u64) -> String {
        let value = match self {
            Self::OpenFiles | Self::Processes => value,
            _ => value.div_ceil(1024),
        };
        format!("{} {value}", self.command())
    }
}

/// As in the middle of a sentence.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddressSpace => "address space",
            Self::Data => "private memory",
            Self::OpenFiles => "open files",
            Self::FileSize => "the length of files",
            Self::Processes => "threads of this user",
            Self::LockedMemory => "locked memory",
        })
    }
}

/// The limits that are in force: the soft ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rlimits {
    values: [Option<u64>; Resource::ALL.len()],
}

impl Rlimits {
    /// This process's.
    ///
    /// # Errors
    ///
    /// When `/proc` is not there.
    pub fn read(tree: &Tree) -> io::Result<Self> {
        Ok(Self::parse(&tree.read("/proc/self/limits")?))
    }

    /// The same from the text of `/proc/self/limits`. What it does not name has no limit.
    pub fn parse(text: &str) -> Self {
        let value = |resource: Resource| {
            let rest = text.lines().find_map(|line| line.strip_prefix(resource.name()))?;
            // "unlimited" is no number.
            rest.split_ascii_whitespace().next()?.parse().ok()
        };
        Self { values: Resource::ALL.map(value) }
    }

    /// How much there may be, in the resource's unit; `None` where it has no limit.
    pub fn get(&self, resource: Resource) -> Option<u64> {
        let index = Resource::ALL.iter().position(|&other| other == resource)?;
        self.values[index]
    }
}

/// Bytes of address space that this process has; `None` if the kernel does not report it.
pub fn address_space_bytes(tree: &Tree) -> Option<u64> {
    super::memory::field_kib(&tree.read("/proc/self/status").ok()?, "VmSize:")
}

/// Bytes of private memory that this process has and that can be written, whether they are there or not; `None` if the
/// kernel does not report it.
pub fn data_bytes(tree: &Tree) -> Option<u64> {
    super::memory::field_kib(&tree.read("/proc/self/status").ok()?, "VmData:")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max file size             1024000              unlimited            bytes     
Max processes             96365                96365                processes 
Max open files            8                    20000                files     
Max locked memory         8388608              8388608              bytes     
Max address space         unlimited            unlimited            bytes     
";

    #[test]
    fn the_soft_limits_are_read_and_unlimited_is_none() {
        let limits = Rlimits::parse(TEXT);
        let values = Resource::ALL.map(|resource| limits.get(resource));
        let none = None;
        assert_eq!(values, [none, none, Some(8), Some(1_024_000), Some(96365), Some(8 << 20)]);
        assert_eq!(Rlimits::parse("nonsense"), Rlimits::default());
    }

    #[test]
    fn the_kernel_says_what_this_process_may_have() {
        let limits = Rlimits::read(&Tree::real()).unwrap();
        assert!(limits.get(Resource::OpenFiles).unwrap() > 8);
        assert!(address_space_bytes(&Tree::real()).unwrap() > 4096);
        assert!(data_bytes(&Tree::real()).unwrap() > 4096);
        let (tree, _files) = Tree::made_up(&[]);
        assert!(Rlimits::read(&tree).is_err());
    }

    #[test]
    fn commands_take_kib_for_bytes() {
        assert_eq!(Resource::AddressSpace.command_for(1025), "ulimit -v 2");
        assert_eq!(Resource::OpenFiles.command_for(1025), "ulimit -n 1025");
    }
}
