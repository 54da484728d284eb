//! What runs in a VM.

use std::fmt;
use std::path::PathBuf;

use pagefold_guest::workload::Preset;

use super::PcDevices;

/// The built-in guest and its workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltinGuest {
    /// The workload.
    pub preset: Preset,
    /// Which VM of its group this is: decides its own pages, and where every page lies.
    pub vm_number: u32,
    /// Guests with the same seed have the same common pages.
    pub seed: u64,
}

/// At which privilege level a flat image starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// CPL 0, without descriptor tables: the first exception is a triple fault.
    Kernel,
    /// CPL 3 with IOPL 3, as the built-in guest starts.
    User,
}

/// A few bytes of machine code, for testing what the VMM does with them. They are loaded at
/// [`pagefold_guest::layout::IMAGE_GPA`] and entered at their first byte in long mode, with the
/// memory below 3 GiB mapped one to one and the devices of the built-in guest. Every vCPU enters them
/// there, with its number in RDI and a stack of its own. The VM stops when the first of its vCPUs does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatImage {
    /// The code.
    pub code: Vec<u8>,
    /// Its privilege level.
    pub privilege: Privilege,
}

/// A Linux kernel, with what it boots from. Its devices are those of a PC: see `vmm/src/pc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinuxGuest {
    /// An ELF image (`vmlinux`) or a bzImage.
    pub kernel: PathBuf,
    /// Its first file system, if there is one.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub cmdline: String,
    /// The devices of its machine.
    pub devices: PcDevices,
}

/// What runs in a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guest {
    /// The guest that comes with the VMM.
    Builtin(BuiltinGuest),
    /// A piece of code.
    Flat(FlatImage),
    /// A Linux kernel.
    Linux(LinuxGuest),
}

impl Guest {
    /// How many event descriptors its devices take.
    pub fn event_descriptors(&self) -> u32 {
        match self {
            Self::Builtin(_) | Self::Flat(_) => 0,
            // The serial port's interrupt line.
            Self::Linux(linux) => linux.devices.event_descriptors().saturating_add(1),
        }
    }

    /// How many disks it has, each of which takes a descriptor.
    pub fn disks(&self) -> u32 {
        match self {
            Self::Builtin(_) | Self::Flat(_) => 0,
            Self::Linux(linux) => linux.devices.disk_count(),
        }
    }
}

/// Writes `builtin:NAME`, `flat`, or `linux:` and the name of the kernel's file.
impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(builtin) => builtin.preset.fmt(f),
            Self::Flat(_) => f.write_str("flat"),
            Self::Linux(linux) => {
                let name = linux.kernel.file_name().unwrap_or_default();
                write!(f, "linux:{}", name.display())
            }
        }
    }
}
