//! What a kernel is passed by PVH.

use linux_loader::loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::BootInfo;
use super::memory_map::memory_map;
use crate::loader::WriteError;
use crate::memory::GuestRam;

const MAGIC: u32 = 0x336e_c578;
/// The version with a memory map.
const VERSION: u32 = 1;

const INFO: u64 = 0x6000;
const MODULES: u64 = 0x6040;
const MEMORY_MAP: u64 = 0x6080;

/// Writes it, and returns its address.
///
/// # Errors
///
/// When there is no memory.
pub(super) fn write(ram: &GuestRam, boot: &BootInfo) -> Result<u64, WriteError> {
    let map = memory_map(ram.layout());
    let info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        nr_modules: u32::from(boot.initrd.is_some()),
        modlist_paddr: MODULES,
        cmdline_paddr: boot.cmdline,
        rsdp_paddr: boot.acpi,
        memmap_paddr: MEMORY_MAP,
        // Five at most.
        memmap_entries: u32::try_from(map.len()).unwrap_or(u32::MAX),
        ..hvm_start_info::default()
    };
    write_at(ram, INFO, info)?;
    if let Some((paddr, size)) = boot.initrd {
        write_at(ram, MODULES, hvm_modlist_entry { paddr, size, ..hvm_modlist_entry::default() })?;
    }
    let mut address = MEMORY_MAP;
    for (range, type_) in map {
        let size = range.end - range.start;
        let entry = hvm_memmap_table_entry { addr: range.start, size, type_, reserved: 0 };
        write_at(ram, address, entry)?;
        address += size_of::<hvm_memmap_table_entry>() as u64;
    }
    Ok(INFO)
}

fn write_at<T: ByteValued>(ram: &GuestRam, address: u64, value: T) -> Result<(), WriteError> {
    ram.memory().write_obj(value, GuestAddress(address)).map_err(|source| WriteError {
        what: "PVH start info",
        address,
        source,
    })
}
