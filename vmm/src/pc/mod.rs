//! The machine that stock kernels expect: what firmware would have found and described.
//!
//! | file | what it is |
//! |---|---|
//! | `layout` | addresses, ports and interrupt lines |
//! | `acpi` | the tables that describe the machine |
//! | `cpuid` | the processor, as a guest sees it |
//! | `reset_vector` | what stands where firmware would be |
//! | `counters` | performance counters, which no guest has |
//! | `irqchip` | interrupt controllers in the kernel, and devices' lines to them |
//! | `msrs` | model-specific registers that firmware sets |
//! | `devices` | serial port, keyboard controller and power registers |
//! | `virtio` | virtio devices |

pub(crate) mod acpi;
mod counters;
mod cpuid;
mod devices;
mod irqchip;
pub(crate) mod layout;
mod msrs;
mod reset_vector;
mod virtio;

pub(crate) use counters::disable_counters;
pub(crate) use cpuid::cpuid;
pub(crate) use devices::devices;
pub(crate) use irqchip::{IrqLine, create_irqchip};
pub(crate) use msrs::set_msrs;
pub(crate) use reset_vector::write_reset_vector;
pub(crate) use virtio::{DeviceHost, NamedMetrics, VirtioDevices};
