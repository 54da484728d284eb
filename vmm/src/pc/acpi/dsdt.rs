//! What devices there are, and how to sleep.

use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate,
};
use acpi_tables::sdt::Sdt;
use pagefold_devices::SERIAL_PORTS;
use pagefold_devices::acpi::power::SLEEP_TYPE_OFF;
use pagefold_devices::virtio::mmio::REGISTER_BYTES;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::pc::layout;

/// Bytes of a table's header.
const HEADER_BYTES: u32 = 36;

/// The version from which on integers have 64 bits.
const REVISION: u8 = 6;

/// The table of a machine with so many virtio devices.
pub(super) fn dsdt(virtio_count: u32) -> Vec<u8> {
    let mut code = Vec::new();
    // S5, "soft off", by what is to be written to the sleep control register.
    Name::new("_S5_".into(), &Package::new(vec![&SLEEP_TYPE_OFF])).to_aml_bytes(&mut code);
    add_serial_port(&mut code);
    (0..virtio_count).for_each(|number| add_virtio_device(&mut code, number));
    let mut table = Sdt::new(*b"DSDT", HEADER_BYTES, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&code);
    table.as_slice().to_vec()
}

fn add_serial_port(code: &mut Vec<u8>) {
    let port = *layout::SERIAL.start();
    let interrupt = Interrupt::new(true, true, false, false, layout::SERIAL_IRQ);
    // Their number fits.
    let ports = IO::new(port, port, 1, u8::try_from(SERIAL_PORTS).unwrap_or(u8::MAX));
    Device::new(
        "_SB_.COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &1_u8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports, &interrupt])),
        ],
    )
    .to_aml_bytes(code);
}

/// Source: Linux's `drivers/virtio/virtio_mmio.c`, which looks for this identifier.
fn add_virtio_device(code: &mut Vec<u8>, number: u32) {
    let (registers, irq) = (layout::virtio_registers(number), layout::VIRTIO_FIRST_IRQ + number);
    // They lie below 4 GiB, and are few.
    let start = u32::try_from(*registers.start()).unwrap_or(u32::MAX);
    let size = u32::try_from(REGISTER_BYTES).unwrap_or(u32::MAX);
    let memory = Memory32Fixed::new(true, start, size);
    let interrupt = Interrupt::new(true, true, false, false, irq);
    let name = format!("_SB_.VR{number:02X}");
    Device::new(
        name.as_str().into(),
        vec![
            &Name::new("_HID".into(), &"LNRO0005"),
            &Name::new("_UID".into(), &number),
            &Name::new("_CCA".into(), &1_u8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&memory, &interrupt])),
        ],
    )
    .to_aml_bytes(code);
}
