//! A Linux kernel: an ELF image or a bzImage, with an initrd and a command line.
//!
//! | file | what it is |
//! |---|---|
//! | `kernel` | the kernel's file: what it is, and where it goes |
//! | `initrd` | the initrd's file, and where it goes |
//! | `cmdline` | the command line |
//! | `memory_map` | which addresses are memory |
//! | `boot_params` | what a kernel is passed by the 64-bit boot protocol |
//! | `start_info` | what it is passed by PVH |
//! | `error` | why it was not loaded |
//!
//! Source: the kernel's `Documentation/arch/x86/boot.rst`; Xen's `docs/misc/pvh.pandoc`.

mod boot_params;
mod cmdline;
mod error;
mod initrd;
mod kernel;
mod memory_map;
mod start_info;

pub use error::LinuxError;

use super::paging::write_page_tables;
use super::{Argument, Entry, LoadError, Loader};
use crate::config::{LinuxGuest, Privilege};
use crate::memory::{GuestRam, MemoryLayout};
use crate::pc::acpi::write_tables;
use crate::pc::write_reset_vector;
use cmdline::Cmdline;
use initrd::Initrd;
use kernel::{KernelFile, LoadedKernel, Protocol};

/// As many vCPUs as an in-kernel I/O APIC and 8-bit APIC ids are tried with.
const MAX_VCPUS: u32 = 32;

/// What a kernel is passed, whatever its protocol.
struct BootInfo {
    /// The command line's address.
    cmdline: u64,
    /// The initrd's address and size, if there is one.
    initrd: Option<(u64, u64)>,
    /// The address of ACPI's first table.
    acpi: u64,
}

impl Loader for LinuxGuest {
    fn check(&self, layout: MemoryLayout, vcpus: u32) -> Result<(), LoadError> {
        if vcpus > MAX_VCPUS {
            return Err(LinuxError::Vcpus { vcpus, max: MAX_VCPUS }.into());
        }
        let kernel = KernelFile::open(&self.kernel)?;
        Cmdline::new(&self.cmdline, kernel.max_cmdline_bytes())?;
        let kernel_end = kernel.least_end(layout)?;
        if let Some(path) = &self.initrd {
            Initrd::open(path)?.place(layout, kernel_end, kernel.initrd_limit())?;
        }
        Ok(())
    }

    /// The first vCPU alone is started; it starts the others.
    fn load(&self, ram: &GuestRam, vcpus: u32, _tsc_khz: u32) -> Result<Vec<Entry>, LoadError> {
        Ok(vec![load(self, ram, vcpus)?])
    }
}

fn load(guest: &LinuxGuest, ram: &GuestRam, vcpus: u32) -> Result<Entry, LinuxError> {
    let mut file = KernelFile::open(&guest.kernel)?;
    let cmdline = Cmdline::new(&guest.cmdline, file.max_cmdline_bytes())?.write(ram)?;
    let kernel = file.load(ram)?;
    let layout = ram.layout();
    let place = |path| -> Result<(u64, u64), LinuxError> {
        let mut initrd = Initrd::open(path)?;
        let address = initrd.place(layout, kernel.end, file.initrd_limit())?;
        initrd.load(ram, address)?;
        Ok((address, initrd.len_bytes()))
    };
    let initrd = guest.initrd.as_deref().map(place).transpose()?;
    write_reset_vector(ram)?;
    let acpi = write_tables(ram, vcpus, guest.devices.virtio_count())?;
    let boot = BootInfo { cmdline, initrd, acpi };
    let LoadedKernel { instruction, protocol, .. } = kernel;
    let entry = |page_tables, argument| Entry {
        instruction,
        stack: 0,
        page_tables,
        argument,
        privilege: Privilege::Kernel,
    };
    match protocol {
        Protocol::Pvh => {
            let info = start_info::write(ram, &boot)?;
            Ok(entry(None, Argument::Ebx(info)))
        }
        Protocol::Long(header) => {
            let page_tables = write_page_tables(ram)?;
            let params = boot_params::write(ram, header, &boot)?;
            Ok(entry(Some(page_tables), Argument::Rsi(params)))
        }
    }
}

#[cfg(test)]
mod tests;
