//! The tables that describe the machine: of hardware-reduced ACPI, so that there is neither a PIC nor a PM timer
//! that guests would look for.
//!
//! | file | what it is |
//! |---|---|
//! | `dsdt` | what devices there are, and how to sleep |
//!
//! Source: ACPI 6.5, chapter 5.

mod dsdt;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use pagefold_devices::PowerRegisters;
use pagefold_devices::acpi::power::RESET_VALUE;
use vm_memory::{Bytes, GuestAddress};

use super::layout;
use crate::loader::WriteError;
use crate::memory::GuestRam;

/// Who made the tables.
const OEM_ID: [u8; 6] = *b"PGFOLD";
const OEM_TABLE_ID: [u8; 8] = *b"PAGEFOLD";
const OEM_REVISION: u32 = 1;

/// There is no VGA adapter, and no clock in CMOS memory.
const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 5;

/// Writes the tables of a machine with so many vCPUs and virtio devices, and returns the address of the first,
/// which leads to the others.
///
/// # Errors
///
/// When there is no memory where they belong; some may be there.
pub(crate) fn write_tables(
    ram: &GuestRam,
    vcpus: u32,
    virtio_count: u32,
) -> Result<u64, WriteError> {
    let mut tables = Tables { ram, next: layout::ACPI_TABLES.start + RSDP_BYTES };
    let dsdt = tables.write(&dsdt::dsdt(virtio_count))?;
    let fadt = tables.write(&bytes(&fadt(dsdt).finalize()))?;
    let madt = tables.write(&bytes(&madt(vcpus)))?;
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = tables.write(&bytes(&xsdt))?;
    // First in memory, as guests that search find it there.
    tables.next = layout::ACPI_TABLES.start;
    tables.write(&bytes(&Rsdp::new(OEM_ID, xsdt)))
}

/// What the first table takes, with some room.
const RSDP_BYTES: u64 = 64;

struct Tables<'ram> {
    ram: &'ram GuestRam,
    next: u64,
}

impl Tables<'_> {
    /// Writes a table behind the others, and returns its address.
    fn write(&mut self, table: &[u8]) -> Result<u64, WriteError> {
        let address = self.next;
        self.next = (address + table.len() as u64).next_multiple_of(16);
        self.ram
            .memory()
            .write_slice(table, GuestAddress(address))
            .map_err(|source| WriteError { what: "ACPI tables", address, source })?;
        Ok(address)
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// What is fixed: how to turn the machine off, and to reset it.
fn fadt(dsdt: u64) -> FADTBuilder {
    let register = |offset: u16| {
        let address = u64::from(layout::POWER + offset);
        GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, address)
    };
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    fadt.reset_reg = register(PowerRegisters::RESET);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = register(PowerRegisters::SLEEP_CONTROL);
    fadt.sleep_status_reg = register(PowerRegisters::SLEEP_STATUS);
    fadt
}

/// Processors and interrupt controllers.
fn madt(vcpus: u32) -> MADT {
    let controller = LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, controller);
    // There are no more vCPUs than APIC ids of 8 bits.
    for number in 0..u8::try_from(vcpus).unwrap_or(u8::MAX) {
        madt.add_structure(ProcessorLocalApic::new(number, number, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IO_APIC, 0));
    madt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(ram: &GuestRam, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        ram.memory().read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    /// A table with its length in its header, whose bytes add up to 0.
    fn table(ram: &GuestRam, address: u64) -> Vec<u8> {
        let len = u32::from_le_bytes(read(ram, address + 4));
        let mut bytes = vec![0; len as usize];
        ram.memory().read_slice(&mut bytes, GuestAddress(address)).unwrap();
        assert_eq!(bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)), 0, "{bytes:x?}");
        bytes
    }

    #[test]
    fn the_first_table_leads_to_all_others_and_their_sums_are_right() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let rsdp = write_tables(&ram, 3, 2).unwrap();
        assert_eq!(rsdp % 16, 0);
        assert_eq!(&read::<8>(&ram, rsdp), b"RSD PTR ");
        let xsdt = table(&ram, u64::from_le_bytes(read(&ram, rsdp + 24)));
        assert_eq!(&xsdt[..4], b"XSDT");
        let address = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let others: Vec<_> =
            xsdt[36..].chunks(8).map(|entry| table(&ram, address(entry))).collect();
        assert_eq!(others.len(), 2);
        assert_eq!((&others[0][..4], &others[1][..4]), (&b"FACP"[..], &b"APIC"[..]));
        let dsdt = table(&ram, address(&others[0][140..148]));
        assert_eq!(&dsdt[..4], b"DSDT");
        let devices = dsdt.windows(8).filter(|bytes| bytes == b"LNRO0005");
        assert_eq!(devices.count(), 2);
        // Three processors of 8 bytes and an I/O APIC of 12.
        assert_eq!(others[1].len(), 44 + 3 * 8 + 12);
    }

    #[test]
    fn memory_without_room_for_them_is_refused() {
        let error = write_tables(&GuestRam::new(64 << 10).unwrap(), 1, 0).unwrap_err().to_string();
        assert!(error.contains("ACPI tables"), "{error}");
    }
}
