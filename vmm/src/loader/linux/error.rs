//! Why a Linux kernel was not loaded.

use std::io;
use std::path::PathBuf;

use linux_loader::loader::Error as LoaderError;

use crate::loader::WriteError;
use crate::loader::image::{ElfTarget, X86_64};

/// Why a Linux kernel was not loaded; some of it may be in guest memory.
#[derive(Debug, thiserror::Error)]
pub enum LinuxError {
    /// One of its files cannot be read.
    #[error("cannot read the {what} {}", path.display())]
    Read {
        /// The kernel or the initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// One of its files is no file: its size is not known.
    #[error("the {what} {} is not a regular file", path.display())]
    NotAFile {
        /// The kernel or the initrd.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// One of its files has nothing in it.
    #[error("the {what} {} is empty", path.display())]
    Empty {
        /// The kernel or the initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// It is neither an ELF image nor a bzImage.
    #[error("{} is no Linux kernel for x86-64: {found}; give an ELF image (vmlinux) or a bzImage", path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
        /// What it is, or lacks.
        found: &'static str,
    },
    /// It is an ELF image for another machine.
    #[error("the kernel {} is for {found}, and one for {X86_64} is needed", path.display())]
    OtherMachine {
        /// The file.
        path: PathBuf,
        /// What it is for.
        found: ElfTarget,
    },
    /// It does not make sense, or is cut short.
    #[error("the kernel {} cannot be loaded", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// linux-loader's reason.
        #[source]
        source: LoaderError,
    },
    /// It does not fit.
    #[error(
        "the kernel {} needs memory up to {end:#x}, and the VM's ends at {memory_end:#x}: give it more",
        path.display()
    )]
    DoesNotFit {
        /// The file.
        path: PathBuf,
        /// The first address above what it needs.
        end: u64,
        /// The first address above the VM's memory below the hole.
        memory_end: u64,
    },
    /// The initrd does not fit beside it.
    #[error(
        "the initrd {} of {initrd_bytes} bytes does not fit between the kernel's end at {kernel_end:#x} and \
         {limit:#x}: give the VM more memory",
        path.display()
    )]
    InitrdDoesNotFit {
        /// The file.
        path: PathBuf,
        /// Its size.
        initrd_bytes: u64,
        /// The first address above the kernel.
        kernel_end: u64,
        /// The first address above where it may lie.
        limit: u64,
    },
    /// The command line is too long.
    #[error("the kernel's command line has {found} bytes, and this kernel takes {max} at most")]
    CmdlineTooLong {
        /// Its length.
        found: usize,
        /// The most there can be.
        max: usize,
    },
    /// The command line has a byte that ends it.
    #[error(
        "the kernel's command line must not have a zero byte, as it has at position {position}"
    )]
    CmdlineZero {
        /// Where.
        position: usize,
    },
    /// It would not use as many vCPUs.
    #[error("a Linux guest has at most {max} vCPUs here, and {vcpus} were asked for")]
    Vcpus {
        /// The number asked for.
        vcpus: u32,
        /// The most there can be.
        max: u32,
    },
    /// Something else than the kernel does not fit.
    #[error(transparent)]
    Write(#[from] WriteError),
}
