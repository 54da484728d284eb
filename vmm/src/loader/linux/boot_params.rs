//! What a kernel is passed by the 64-bit boot protocol: the "zero page".

use linux_loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestAddress};

use super::BootInfo;
use super::memory_map::memory_map;
use crate::loader::WriteError;
use crate::memory::GuestRam;

const ADDRESS: u64 = 0x7000;

/// A loader that has no number of its own.
const UNDEFINED_LOADER: u8 = 0xff;

/// Writes it, with what the kernel's file says of itself, and returns its address.
///
/// # Errors
///
/// When there is no memory.
pub(super) fn write(
    ram: &GuestRam,
    header: setup_header,
    boot: &BootInfo,
) -> Result<u64, WriteError> {
    let mut params =
        boot_params { hdr: header, acpi_rsdp_addr: boot.acpi, ..boot_params::default() };
    params.hdr.type_of_loader = UNDEFINED_LOADER;
    (params.hdr.cmd_line_ptr, params.ext_cmd_line_ptr) = halves(boot.cmdline);
    if let Some((address, len_bytes)) = boot.initrd {
        (params.hdr.ramdisk_image, params.ext_ramdisk_image) = halves(address);
        (params.hdr.ramdisk_size, params.ext_ramdisk_size) = halves(len_bytes);
    }
    let map = memory_map(ram.layout());
    for (entry, (range, kind)) in params.e820_table.iter_mut().zip(&map) {
        *entry =
            boot_e820_entry { addr: range.start, size: range.end - range.start, r#type: *kind };
    }
    // Five at most.
    params.e820_entries = u8::try_from(map.len()).unwrap_or(u8::MAX);
    ram.memory().write_obj(params, GuestAddress(ADDRESS)).map_err(|source| WriteError {
        what: "boot parameters",
        address: ADDRESS,
        source,
    })?;
    Ok(ADDRESS)
}

/// An address or a size in two parts: the lower 32 bits, and those above.
#[expect(clippy::cast_possible_truncation, reason = "each takes its part")]
fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}
