//! The devices of a Pagefold microVM.
//!
//! A device sees offsets and bytes, and answers with bytes and at most one [`Effect`] for the vCPU
//! that made the access. It knows no KVM and no deduplication, and nothing of the guest that runs
//! on it: which port it sits at is the business of whoever puts it on the [`PortBus`].

mod bus;
mod paravirt;
mod serial;

pub use bus::{Effect, InsertError, PortBus, PortDevice};
pub use paravirt::{ControlWord, Paravirt, ParavirtPorts};
pub use serial::{SERIAL_PORTS, SerialConsole, SerialOutput};
