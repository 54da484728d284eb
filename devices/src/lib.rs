//! The devices of a Pagefold microVM.
//!
//! A device sees offsets and bytes, and answers with bytes and at most one [`Effect`] for the vCPU
//! that made the access. It depends on neither KVM nor deduplication, nor on the guest that runs
//! on it: which port or address it sits at is set where it is put on a [bus](Buses).
//! What else it needs comes in through traits, [`Interrupt`] and [`DeviceMemory`], so that a test
//! needs no VM.
//!
//! | module | what it is |
//! |---|---|
//! | `bus` | ports and addresses, and the devices there |
//! | `irq` | interrupts, as a device raises them |
//! | `memory` | guest memory, as a device reaches it |
//! | [`acpi`] | the registers that turn a machine off |
//! | [`legacy`] | the serial port, the keyboard controller |
//! | [`pseudo`] | the paravirtual block |
//! | `workers` | threads that carry out what devices must not wait for |
//! | `sys` | everything that the compiler cannot check |
//! | [`virtio`] | virtio devices, and the transport that guests reach them by |

pub mod acpi;
mod bus;
mod irq;
pub mod legacy;
mod memory;
pub mod pseudo;
mod sys;
pub mod virtio;
mod workers;

pub use acpi::power::PowerRegisters;
pub use bus::{
    BusDevice, Buses, Effect, InsertError, MmioBus, Occupied, PortBus, SharedDevice, Unclaimed,
};
pub use irq::{Interrupt, NoInterrupt};
pub use legacy::i8042::{I8042, I8042_PORTS};
pub use legacy::serial::{SERIAL_PORTS, SerialConsole, SerialOutput};
pub use memory::DeviceMemory;
pub use pseudo::paravirt::{ControlWord, Paravirt, ParavirtPorts};
pub use workers::{Work, WorkerPool};
