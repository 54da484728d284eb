//! Devices that guests find in ACPI's tables alone.

pub mod power;
