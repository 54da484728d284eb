//! Addresses, ports and interrupt lines of the machine.

use std::ops::{Range, RangeInclusive};

use pagefold_devices::virtio::mmio::REGISTER_BYTES;
use pagefold_devices::{I8042_PORTS, PowerRegisters, SERIAL_PORTS};

/// Memory below what was video memory and firmware once.
pub(crate) const LOW_MEMORY_END: u64 = 0xa_0000;

/// Where ACPI's tables lie: where a guest searches for them that was not passed their address.
pub(crate) const ACPI_TABLES: Range<u64> = 0xe_0000..0x10_0000;

/// Where a jump to the firmware goes in real mode, F000:FFF0: the last 16 bytes of what is reserved for ACPI's tables.
pub(crate) const RESET_VECTOR: u64 = 0xf_fff0;

/// The first address above 1 MiB, from where on kernels are loaded.
pub(crate) const HIGH_MEMORY_START: u64 = 0x10_0000;

/// The local APICs, and the I/O APIC.
pub(crate) const LOCAL_APIC: u32 = 0xfee0_0000;
pub(crate) const IO_APIC: u32 = 0xfec0_0000;

/// Three pages that KVM needs for guests on VMX in real mode, and one page before them: in the hole below 4 GiB.
pub(crate) const TSS: u64 = 0xfffb_d000;
pub(crate) const IDENTITY_MAP: u64 = 0xfffb_c000;

/// The first serial port.
pub(crate) const SERIAL: RangeInclusive<u16> = 0x3f8..=0x3f8 + (SERIAL_PORTS - 1);
/// Its interrupt.
pub(crate) const SERIAL_IRQ: u32 = 4;

/// The registers of virtio devices, one after the other, in the hole below 4 GiB.
pub(crate) const VIRTIO_START: u64 = 0xd000_0000;
/// The interrupt of the first; the others have the next ones.
pub(crate) const VIRTIO_FIRST_IRQ: u32 = 5;
/// There are no more interrupts on an I/O APIC.
pub(crate) const MAX_VIRTIO_DEVICES: u32 = 24 - VIRTIO_FIRST_IRQ;

/// Where the registers of virtio device `number` are.
pub(crate) fn virtio_registers(number: u32) -> RangeInclusive<u64> {
    let start = VIRTIO_START + u64::from(number) * REGISTER_BYTES;
    start..=start + (REGISTER_BYTES - 1)
}

/// The keyboard controller.
pub(crate) const I8042: RangeInclusive<u16> = 0x60..=0x60 + (I8042_PORTS - 1);

/// Sleep control, sleep status and reset.
pub(crate) const POWER: u16 = 0x600;
pub(crate) const POWER_PORTS: RangeInclusive<u16> = POWER..=POWER + (PowerRegisters::PORTS - 1);
